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


LOOKAHEAD = {
    optax.LookaheadState: Conflict(
        "its params are pairs of fast and slow weights",
        "Put stochastic_rounding(psi(...), key) inside of it; master_weights"
        " fits neither inside nor around it.",
    )
}


def check_nesting(
    outer: str,
    state: optax.OptState,
    conflicts: Mapping[type, Conflict],
    unmanaged_paths: Collection[str] = (),
) -> None:
    """Reject an optimizer that cannot be nested.

    Args:
        outer: the name of the outer transform.
        state: the optimizer's.
        conflicts: by the class of a state.
        unmanaged_paths: of parameters that the optimizer alone moves, whose
            copies are right.

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
    outer: str,
    tx: optax.GradientTransformation,
    groups: Groups,
    conflicts: Mapping[type, Conflict],
) -> optax.GradientTransformationExtraArgs:
    """Return the transform, with an `init` that calls `check_nesting`."""

    def init_fn(params: Tree) -> Any:
        state = tx.init(params)
        check_nesting(outer, state, conflicts, ordinary_paths(params, groups))
        return state

    tx = optax.with_extra_args_support(tx)
    return optax.GradientTransformationExtraArgs(init_fn, tx.update)


def ordinary_paths(params: Tree, groups: Groups) -> set[str]:
    """Return the paths of parameters without scale groups."""
    return _paths(params) - set(make_plan(groups, params).paths)


def _paths(tree: Tree) -> set[str]:
    return {x.path for x in leaves_with_paths(tree) if not x.is_placeholder}
