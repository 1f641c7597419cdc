"""Optimizer states that cannot be nested inside another transform.

An optimizer that keeps its own weights is left behind by a retraction: its next
step starts from where it believes the weights to be.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import optax

from psi_optax.groups import Groups, Tree, make_plan
from psi_optax.groups.paths import leaves_with_paths
from psi_optax.transforms.state_checks import find_states
from psi_optax.wrappers.states import (
    AverageWeightsState,
    MasterWeightsState,
    StochasticRoundingState,
)


class Conflict(NamedTuple):
    """Reason to reject a nested state, with a remedy.

    {outer} stands for the name of the outer transform.

    Attributes:
        reason: a clause.
        remedy: a sentence.
        field: of the state, if it holds weights: the state is rejected only if
            another transform moves these weights too. None always rejects it.
    """

    reason: str
    remedy: str
    field: str | None = None


_COPIES = "it keeps its own weights, which {outer} would leave behind"
_AROUND = "Put {outer} inside of it."
_OTHER = "Choose another optimizer."

LOOKAHEAD = {
    optax.LookaheadState: Conflict(
        "its params are pairs of fast and slow weights",
        "Put stochastic_rounding(psi(...), key) inside of it; master_weights"
        " fits neither inside nor around it.",
    )
}

CONFLICTS: Mapping[type, Conflict] = {
    AverageWeightsState: Conflict(_COPIES, "Put it after {outer}.", "average"),
    MasterWeightsState: Conflict(_COPIES, _AROUND, "weights"),
    StochasticRoundingState: Conflict("its rounding would be lost", _AROUND),
    optax.LookaheadState: Conflict("its params are pairs", _AROUND),
    optax.ScaleByLBFGSState: Conflict(_COPIES, _OTHER, "params"),
    optax.contrib.COCOBState: Conflict(_COPIES, _OTHER, "init_particles"),
    optax.contrib.SAMState: Conflict(
        _COPIES,
        "Put {outer} inside of it, or choose opaque_mode=True.",
        "cache",
    ),
    optax.contrib.ScheduleFreeState: Conflict(
        _COPIES,
        "Around {outer} its weights leave their norms: put average_weights"
        " after {outer} in its place.",
        "z",
    ),
}


def check_nesting(
    outer: str,
    state: optax.OptState,
    unmanaged_paths: Collection[str] = (),
    conflicts: Mapping[type, Conflict] = CONFLICTS,
) -> None:
    """Reject an optimizer that cannot be nested.

    Args:
        outer: the name of the outer transform.
        state: the optimizer's.
        unmanaged_paths: of parameters that the optimizer alone moves, whose
            copies are right.
        conflicts: by the class of a state.

    Raises:
        ValueError: one of these is in the state.
    """
    for node in find_states(state, *conflicts):
        conflict = conflicts[type(node)]
        held = conflict.field and getattr(node, conflict.field)
        if conflict.field is None or _paths(held) - set(unmanaged_paths):
            raise ValueError(
                f"{outer} cannot run an optimizer with state"
                f" {type(node).__name__} inside: {conflict.reason}."
                f" {conflict.remedy}".replace("{outer}", outer)
            )


def with_nesting_check(
    outer: str, tx: optax.GradientTransformation, groups: Groups
) -> optax.GradientTransformationExtraArgs:
    """Return the transform, with an `init` that calls `check_nesting`."""

    def init_fn(params: Tree) -> Any:
        state = tx.init(params)
        check_nesting(outer, state, ordinary_paths(params, groups))
        return state

    tx = optax.with_extra_args_support(tx)
    return optax.GradientTransformationExtraArgs(init_fn, tx.update)


def ordinary_paths(params: Tree, groups: Groups) -> set[str]:
    """Return the paths of parameters without scale groups."""
    return _paths(params) - set(make_plan(groups, params).paths)


def _paths(tree: Tree) -> set[str]:
    return {x.path for x in leaves_with_paths(tree) if not x.is_placeholder}
