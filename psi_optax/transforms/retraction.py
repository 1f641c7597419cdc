"""Retraction: updates that end on the sphere of each group."""

from typing import Any, NamedTuple

import optax

from psi_optax import geometry
from psi_optax._validation import check_choice
from psi_optax.groups import Groups, Leaves, Plan
from psi_optax.transforms.contract import grouped_transform
from psi_optax.transforms.radius import (
    Radius,
    check_radius,
    initial_radius,
    sphere_radius,
)


class RetractState(NamedTuple):
    """State of `retract`.

    Attributes:
        radius: `{group name: array of the group shape}`, in the accumulation
            dtype, for `radius="init"`; None otherwise.
    """

    radius: Any


def retract(
    groups: Groups, *, radius: Radius = "init", retraction: str = "projection"
) -> optax.GradientTransformationExtraArgs:
    r"""Change the updates of each group so that they end on its sphere.

    "projection" maps w + u to the nearest point, \(R (w+u)/|w+u|\).
    "exponential" follows the geodesic along the tangent part of u, for its
    length. Put it last in a chain, after the learning rate: a later addition
    leaves the sphere. The new weights are rounded to their dtype before the old
    ones are subtracted, so that `optax.apply_updates` gives exactly these;
    unless updates have a narrower dtype than the weights, which they keep.

    A group of norm zero stays. A group whose update is exactly zero keeps every
    bit (but -0.0 becomes 0.0). A group of one element can be rescaled but never
    rotated. Ordinary parameters pass through.

    Rescaling weights changes the inputs of a following BatchNorm: with a number
    for the radius, evaluation is wrong until its running statistics have
    adapted. Call `normalize` before training, and keep the radius.

    Args:
        groups: scale groups in any form.
        radius: "init" keeps the norms at `init`, in the state; None keeps the
            norm at each step, with no memory and a slow drift; a number moves
            groups onto that sphere, from far larger norms in several steps,
            see `psi`.
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

    def init(plan: Plan, w: Leaves) -> RetractState:
        return RetractState(initial_radius(radius, plan, w))

    def update(
        plan: Plan, u: Leaves, w: Leaves, state: RetractState
    ) -> tuple[Leaves, RetractState]:
        target = sphere_radius(radius, state.radius, plan)
        u = plan.select_steps(u)
        moved = geometry.retract(plan, w, u, target, retraction=retraction)
        return moved, state

    return grouped_transform(groups, update, kind=RetractState, init=init)
