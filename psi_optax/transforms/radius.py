"""The radius, the rate and the states, which several transforms share."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax

from psi_optax.geometry import norm
from psi_optax.groups import Plan
from psi_optax.groups.types import Leaves, Scalars

_State = TypeVar("_State")


def radius_for(retraction: str | None, radius: Radius) -> Radius:
    """The radius, of which there is none without a retraction.

    Raises:
        ValueError: a number that nothing would bring weights to.
    """
    if retraction is not None:
        return radius
    if radius is None or isinstance(radius, str):
        return None
    raise ValueError(
        f"radius={radius!r} means nothing with retraction=None, which lets"
        " norms grow."
    )


def initial_radius(radius: Radius, plan: Plan, w: Leaves) -> Any:
    """What a transform stores: the radii now for "init", nothing otherwise."""
    if not isinstance(radius, str):
        return None
    # A leaf in place of an empty dictionary, so that a state made from optax's
    # placeholder for params, which hides them, is a prefix of the real one.
    return norm(plan, w) if plan.leaves else jnp.zeros([])


def sphere_radius(radius: Radius, stored: Any, plan: Plan) -> Scalars | None:
    """The radius of every group's sphere; None for the norm that it has.

    Raises:
        ValueError: the state was made for other groups.
    """
    if radius is None:
        return None
    if not isinstance(radius, str):
        return plan.full(radius)
    return stored_scalars("radii", stored, plan)


def stored_scalars(what: str, stored: Any, plan: Plan) -> Scalars:
    """One number a group from a state.

    Raises:
        ValueError: the state was made for other groups.
    """
    have = stored if isinstance(stored, dict) else {}
    shapes = {name: jnp.shape(x) for name, x in have.items()}
    if shapes != plan.group_shapes:
        raise ValueError(
            f"the state holds {what} of shapes {shapes}, but the groups have"
            f" {plan.group_shapes}: make the state anew with init(params)."
        )
    return have


def find_states(opt_state: optax.OptState, kind: type[_State]) -> list[_State]:
    """The states of one kind, anywhere in that of an optimizer."""
    found = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, kind))
    return [node for node in found if isinstance(node, kind)]


def refuse_lookahead(who: str, state: optax.OptState) -> None:
    """Raises for optax.lookahead inside, whose params are pairs of params."""
    if isinstance(state, optax.LookaheadState):
        raise ValueError(
            f"{who} cannot run optax.lookahead inside: its params are fast and"
            " slow weights together. Put stochastic_rounding(psi(...), key)"
            " inside of it; master_weights goes neither inside nor around."
        )


def signed_rate(
    learning_rate: optax.ScalarOrSchedule | None, count: jax.typing.ArrayLike
) -> jax.typing.ArrayLike:
    """What a step is multiplied by before it is added: 1 for no rate."""
    if learning_rate is None:
        return 1
    rate = learning_rate(count) if callable(learning_rate) else learning_rate
    return -jnp.asarray(rate)
