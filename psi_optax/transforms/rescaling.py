"""Weight rescaling: groups return to one norm periodically."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from psi_optax import geometry
from psi_optax._validation import check_period
from psi_optax.groups import Groups, Leaves, Plan
from psi_optax.transforms.contract import cast_like, grouped_transform
from psi_optax.transforms.radius import (
    check_radius,
    initial_radius,
    sphere_radius,
)


class RescaleWeightsState(NamedTuple):
    """State of `rescale_weights`.

    Attributes:
        count: steps taken; shape=(), dtype=int32.
        radius: `{group name: array of the group shape}` for `radius="init"`;
            None otherwise.
    """

    count: jax.typing.ArrayLike
    radius: Any


def rescale_weights(
    groups: Groups,
    *,
    radius: jax.typing.ArrayLike | str = 1.0,
    every: jax.typing.ArrayLike = 1,
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale each group to its radius after every `every`-th step.

    \(w + u \mapsto R\,(w+u)/|w+u|\) if the number of steps, including this
    one, is a multiple of `every`; otherwise u passes through. Put it last in a
    chain. The state of a preceding optimizer is not rescaled with the weights:
    with momentum and long periods its steps jump, as in the published method.
    `psi` has no such jump. Groups of norm zero stay, and so does, at a
    rescaling, a group with a zero update within 1 % of its radius. A group of
    one element can be rescaled, not rotated.

    BatchNorm's running statistics do not follow a rescaling: see `retract`.

    Args:
        groups: scale groups in any form.
        radius: the norm R, positive; or "init", the norms at `init`. From far
            larger norms it takes several steps, see `psi`.
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
        are unknown to us, and are options here.
    """
    if radius is None:
        raise ValueError('radius=None: choose "init" or a number.')
    check_radius(radius)
    check_period("every", every)

    def init(plan: Plan, w: Leaves) -> RescaleWeightsState:
        return RescaleWeightsState(
            jnp.zeros([], jnp.int32), initial_radius(radius, plan, w)
        )

    def update(
        plan: Plan, u: Leaves, w: Leaves, state: RescaleWeightsState
    ) -> tuple[Leaves, RescaleWeightsState]:
        count = optax.safe_increment(state.count)
        now = jnp.mod(count, jnp.asarray(every, jnp.int32)) == 0
        target = sphere_radius(radius, state.radius, plan)
        steps = plan.select_steps(u)
        rescaled = cast_like(geometry.retract(plan, w, steps, target), u)
        chosen = {k: jnp.where(now, rescaled[k], u[k]) for k in u}
        return chosen, RescaleWeightsState(count, state.radius)

    return grouped_transform(
        groups, update, kind=RescaleWeightsState, init=init
    )
