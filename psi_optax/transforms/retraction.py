"""Retraction: updates that end on the sphere."""

from typing import Any, NamedTuple

import optax

from psi_optax import geometry
from psi_optax._validation import check_choice
from psi_optax.groups import Plan
from psi_optax.groups.types import Leaves
from psi_optax.transforms.contract import on_groups
from psi_optax.transforms.radius import (
    Radius,
    check_radius,
    initial_radius,
    sphere_radius,
)


class RetractState(NamedTuple):
    """Radii by group, where they are stored; None otherwise.

    Attributes:
        radius: `{group name: array of the group shape}`, in the accumulator's
            dtype.
    """

    radius: Any


def retract(
    groups: Any, *, radius: Radius = "init", retraction: str = "projection"
) -> optax.GradientTransformationExtraArgs:
    r"""Bends the updates of every group so that they end on its sphere.

    "projection" takes w + u to the nearest point, \(R (w+u)/|w+u|\), and
    "exponential" follows the great circle along the tangent part of u for the
    length of it. Put it last in a chain, after the learning rate: what is
    added to the result leaves the sphere again. The new weights are rounded to
    their dtype first and the old ones subtracted afterwards, so that applying
    the update gives what was meant; unless updates come in a narrower dtype
    than the weights, which they keep.

    A group of norm zero stays, a group whose update is exactly zero stays to
    the last bit (but -0.0 becomes 0.0), a group of one element can be rescaled
    but never turned, and ordinary parameters pass through.

    Rescaling weights changes the statistics that a BatchNorm after them has
    collected: with a number for the radius, evaluation is off until they have
    caught up. Normalize before training (`normalize`) and keep the radius.

    Args:
        groups: scale groups in any form.
        radius: "init" keeps the norms that `init` finds, in the state; None
            keeps the norm at each step, with no memory and a slow drift; a
            number moves groups off the sphere onto it, from far larger norms
            in several steps, see `psi`.
        retraction: "projection" or "exponential".

    Returns:
        A transform that needs params, with a `RetractState`.

    Raises:
        ValueError: groups do not fit params; params are missing in `update`;
            an unknown radius or retraction.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> tx = retract(ScaleGroup(axes=0))
        >>> w = jnp.array([5.0, 0.0])
        >>> u, _ = tx.update(jnp.array([-2.0, 4.0]), tx.init(w), w)
        >>> optax.apply_updates(w, u).tolist()
        [3.0, 4.0]

    References:
        Absil, Mahony and Sepulchre, [Optimization algorithms on matrix
        manifolds](https://press.princeton.edu/absil), 2008, section 4.1.
    """
    check_radius(radius)
    check_choice("retraction", retraction, ("projection", "exponential"))

    def move(plan: Plan, w: Leaves, u: Leaves, target) -> Leaves:
        if retraction == "projection":
            target = target or geometry.norm(plan, w)
            on_sphere = geometry.retract(plan, w, u, target)
            return geometry.rounded_update(w, on_sphere)
        return geometry.exponential(plan, w, u, target)

    def init(plan: Plan, w: Leaves) -> RetractState:
        return RetractState(initial_radius(radius, plan, w))

    def update(plan: Plan, u: Leaves, w: Leaves, state: RetractState):
        target = sphere_radius(radius, state.radius, plan)
        return move(plan, w, plan.select_steps(u), target), state

    return on_groups(groups, update, kind=RetractState, init=init)
