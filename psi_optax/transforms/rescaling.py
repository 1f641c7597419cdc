"""Weight rescaling: back to one norm, every so many steps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from psi_optax import geometry
from psi_optax._validation import check_period
from psi_optax.groups import Plan
from psi_optax.groups.types import Leaves
from psi_optax.transforms.contract import cast_like, on_groups
from psi_optax.transforms.radius import (
    check_radius,
    initial_radius,
    sphere_radius,
)


class RescaleWeightsState(NamedTuple):
    """How many steps were taken, and the radii where they are stored.

    Attributes:
        count: shape=(), dtype=int32.
        radius: `{group name: array of the group shape}`, or None.
    """

    count: jax.typing.ArrayLike
    radius: Any


def rescale_weights(
    groups: Any,
    *,
    radius: jax.typing.ArrayLike | str = 1.0,
    every: jax.typing.ArrayLike = 1,
) -> optax.GradientTransformationExtraArgs:
    r"""Rescales every group to its radius after each `every`-th step.

    \(w + u \mapsto R\,(w+u)/|w+u|\) when the number of steps, this one
    included, is a multiple of `every`; otherwise u passes. Put it last in a
    chain. The state of an optimizer in front is not rescaled with the weights:
    with long periods and momentum that is a jump, and the way the method is
    run; `psi` has no such jump. Groups of norm zero stay as they are, and so
    does, when it is due, a group without an update within 1 % of the radius. A
    group of one element can be rescaled, not turned.

    BatchNorm's collected statistics do not follow a rescaling: see `retract`.

    Args:
        groups: scale groups in any form.
        radius: the norm R, positive; or "init", the norms that `init` finds.
            From far larger norms it takes several steps, see `psi`.
        every: the period in steps, at least 1.

    Returns:
        A transform that needs params, with a `RescaleWeightsState`.

    Raises:
        ValueError: groups do not fit params; params are missing in `update`;
            a radius or a period that is not positive.

    Examples:
        >>> from psi_optax import ScaleGroup
        >>> tx = optax.chain(optax.sgd(0.5), rescale_weights(ScaleGroup(0)))
        >>> w = jnp.array([3.0, 0.0])
        >>> u, _ = tx.update(jnp.array([0.0, -8.0]), tx.init(w), w)
        >>> print(optax.apply_updates(w, u).round(3))
        [0.6 0.8]

    References:
        Liu et al., [Weight rescaling](https://arxiv.org/abs/2102.03497), 2022:
        rescaling to unit norm in place of weight decay. Its period and grouping
        are not known to us, and are options here.
    """
    if radius is None:
        raise ValueError('radius=None: choose "init" or a number.')
    check_radius(radius)
    check_period("every", every)

    def init(plan: Plan, w: Leaves) -> RescaleWeightsState:
        return RescaleWeightsState(
            jnp.zeros([], jnp.int32), initial_radius(radius, plan, w)
        )

    def update(plan: Plan, passed: Leaves, w: Leaves, state: Any):
        u = plan.select_steps(passed)
        count = optax.safe_increment(state.count)
        now = jnp.mod(count, jnp.asarray(every, jnp.int32)) == 0
        target = sphere_radius(radius, state.radius, plan) or {}
        on_sphere = geometry.retract(plan, w, u, target)
        rescaled = cast_like(geometry.rounded_update(w, on_sphere), u)
        chosen = {k: jnp.where(now, rescaled[k], passed[k]) for k in u}
        return chosen, RescaleWeightsState(count, state.radius)

    return on_groups(groups, update, kind=RescaleWeightsState, init=init)
