"""What does not belong inside of a transform that moves weights by itself.

An optimizer with weights of its own is left behind by a retraction: its next
step starts from where it believes the weights to be.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import optax
from psi_optax.groups.types import Tree

from psi_optax.groups import make_plan
from psi_optax.groups.paths import leaves_with_paths
from psi_optax.wrappers.average_weights import AverageWeightsState
from psi_optax.wrappers.master_weights import MasterWeightsState
from psi_optax.wrappers.stochastic_rounding import StochasticRoundingState


class Conflict(NamedTuple):
    """Why a state is refused, and what to do; {what} is who refuses.

    Attributes:
        why: a clause.
        advice: a sentence.
        field: of the state, which holds weights: it is refused only if they
            are weights that somebody else moves too. None refuses it always.
    """

    why: str
    advice: str
    field: str | None = None


_COPIES = "it keeps weights of its own, which {what} would leave behind"
_AROUND = "Put {what} inside of it."

CONFLICTS = {
    AverageWeightsState: Conflict(_COPIES, "Put it behind {what}.", "average"),
    MasterWeightsState: Conflict(_COPIES, _AROUND, "weights"),
    StochasticRoundingState: Conflict("its rounding would be lost", _AROUND),
    optax.LookaheadState: Conflict("its params are pairs", _AROUND),
    optax.ScaleByLBFGSState: Conflict(_COPIES, "Take another.", "params"),
    optax.contrib.COCOBState: Conflict(
        _COPIES, "Take another.", "init_particles"
    ),
    optax.contrib.SAMState: Conflict(
        _COPIES,
        "Put {what} inside of it, or choose opaque_mode=True.",
        "cache",
    ),
    optax.contrib.ScheduleFreeState: Conflict(
        _COPIES,
        "Around {what} its weights leave their norms: put average_weights"
        " behind {what} in its place.",
        "z",
    ),
}


def check_nesting(
    what: str,
    state: optax.OptState,
    free: Collection[str] = (),
    refusals: Mapping[type, Conflict] = CONFLICTS,
) -> None:
    """Raises for an optimizer that does not belong inside.

    Args:
        what: the name of the transform around it.
        state: the optimizer's.
        free: paths of parameters that nothing but the optimizer moves, whose
            copies are right.
        refusals: by the type of a state.

    Raises:
        ValueError: one of these is in the state.
    """
    for node in _nodes(state, tuple(refusals)):
        refusal = refusals[type(node)]
        held = refusal.field and getattr(node, refusal.field)
        if refusal.field is None or _paths(held) - set(free):
            why, advice, _ = refusal
            raise ValueError(
                f"{what} cannot run an optimizer with a {type(node).__name__}"
                f" inside: {why}. {advice}".replace("{what}", what)
            )


def with_nesting_check(
    what: str, tx: optax.GradientTransformationExtraArgs, groups: Any
) -> optax.GradientTransformationExtraArgs:
    """The transform, with an `init` that raises as `refuse` does."""

    def init_fn(params):
        state = tx.init(params)
        check_nesting(what, state, ordinary_paths(params, groups))
        return state

    return optax.GradientTransformationExtraArgs(init_fn, tx.update)


def ordinary_paths(params: Tree, groups: Any) -> set[str]:
    """Of the parameters that have no scale group."""
    return _paths(params) - set(make_plan(groups, params).paths)


def _paths(tree: Tree) -> set[str]:
    return {
        entry.path
        for entry in leaves_with_paths(tree)
        if not entry.is_placeholder
    }


def _nodes(state: Any, kinds: tuple[type, ...]) -> Iterator[Any]:
    """The states of these kinds, those inside of others too."""
    for node in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, kinds)):
        if isinstance(node, kinds):
            yield node
            yield from _nodes(tuple(node), kinds)
