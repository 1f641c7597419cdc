"""What does not belong inside of a transform that moves weights by itself.

An optimizer with weights of its own is left behind by a retraction: its next
step starts from where it believes the weights to be.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import optax

from psi_optax.groups import make_plan
from psi_optax.groups.paths import Tree, entries
from psi_optax.transforms.averaging import AverageWeightsState
from psi_optax.transforms.master import MasterWeightsState
from psi_optax.transforms.rounding import StochasticRoundingState


class Refusal(NamedTuple):
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

REFUSALS = {
    AverageWeightsState: Refusal(_COPIES, "Put it behind {what}.", "average"),
    MasterWeightsState: Refusal(_COPIES, _AROUND, "weights"),
    StochasticRoundingState: Refusal("its rounding would be lost", _AROUND),
    optax.LookaheadState: Refusal("its params are pairs", _AROUND),
    optax.ScaleByLBFGSState: Refusal(_COPIES, "Take another.", "params"),
    optax.contrib.COCOBState: Refusal(
        _COPIES, "Take another.", "init_particles"
    ),
    optax.contrib.SAMState: Refusal(
        _COPIES,
        "Put {what} inside of it, or choose opaque_mode=True.",
        "cache",
    ),
    optax.contrib.ScheduleFreeState: Refusal(
        _COPIES,
        "Around {what} its weights leave their norms: put average_weights"
        " behind {what} in its place.",
        "z",
    ),
}


def refuse(
    what: str,
    state: optax.OptState,
    free: Collection[str] = (),
    refusals: Mapping[type, Refusal] = REFUSALS,
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


def refusing(
    what: str, tx: optax.GradientTransformationExtraArgs, groups: Any
) -> optax.GradientTransformationExtraArgs:
    """The transform, with an `init` that raises as `refuse` does."""

    def init_fn(params):
        state = tx.init(params)
        refuse(what, state, ordinary_paths(params, groups))
        return state

    return optax.GradientTransformationExtraArgs(init_fn, tx.update)


def ordinary_paths(params: Tree, groups: Any) -> set[str]:
    """Of the parameters that have no scale group."""
    return _paths(params) - set(make_plan(groups, params).paths)


def _paths(tree: Tree) -> set[str]:
    return {entry.path for entry in entries(tree) if not entry.is_hole}


def _nodes(state: Any, kinds: tuple[type, ...]) -> Iterator[Any]:
    """The states of these kinds, those inside of others too."""
    for node in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, kinds)):
        if isinstance(node, kinds):
            yield node
            yield from _nodes(tuple(node), kinds)
