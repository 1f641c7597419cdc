"""Random directions in three coordinates, and surfaces along two of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from psi_optax import geometry
from psi_optax.groups import Plan, make_plan
from psi_optax.landscape import loss_surface, tangent_space

COORDINATES = ("weights", "filters", "angles")


class Direction(NamedTuple):
    """A random direction; all three are made of the same normal entries.

    Attributes:
        weights: of the norm of all kernels, whichever the norm of each.
        filters: of the norm of each filter, as Li et al. make it.
        angles: a unit tangent for each filter.
    """

    weights: Any
    filters: Any
    angles: Any


def draw(params: Any, groups: Any, key: jax.Array) -> Direction:
    """Draw a direction from params; it is zero at leaves of rank one."""
    normal = tangent_space(params).random(key)
    space = tangent_space(params, groups)
    angles = space.random(key, filter_normalized=True)
    plan = make_plan(groups, params)
    steps, norms = plan.select(normal), geometry.norm(plan, plan.select(params))
    unit = geometry.direction(plan, steps, geometry.norm(plan, steps))
    kernels = [
        jax.tree.map(lambda x: x if x.ndim > 1 else jnp.zeros_like(x), tree)
        for tree in (params, normal)
    ]
    length, drawn = map(optax.tree.norm, kernels)
    return Direction(
        optax.tree.scale(length / drawn, kernels[1]),
        plan.merge(angles, geometry.scale(plan, unit, norms)),
        angles,
    )


def surface(
    loss: Callable[..., jax.Array],
    params: Any,
    args: tuple[Any, ...],
    directions: Any,
    steps: np.ndarray,
    groups: Any,
) -> np.ndarray:
    """Return the loss on the plane of two steps, or on the line of one."""
    options = {"directions": directions, "steps": steps, "groups": groups}
    return np.asarray(loss_surface(loss, params, *args, **options))


def identity(
    loss: Callable[..., jax.Array],
    params: Any,
    args: tuple[Any, ...],
    direction: Direction,
    steps: np.ndarray,
    groups: Any,
) -> float:
    """Return how far the line of filters is from the same points by angles.

    The point at t of Li et al. is, for a filter, at the angle
    atan2(t sin p, 1 + t cos p), p being that between filter and direction. It
    is the same point of a loss that ignores the scale of filters.
    """
    plan = make_plan(groups, params)
    along = surface(loss, params, args, [direction.filters], steps, None)
    angle = geometry.angle(
        plan, plan.select(params), plan.select(direction.filters)
    )
    turned = [
        surface(
            loss,
            params,
            args,
            [_turn(plan, direction.angles, angle, float(t))],
            np.ones(1),
            groups,
        )[0]
        for t in steps
    ]
    return float(np.abs(along - np.array(turned)).max())


def _turn(plan: Plan, angles: Any, angle: Any, t: float) -> Any:
    """Return the step by angles that leads to the point at t of filters."""
    tangents = {
        name: t * jnp.sin(p) / (1 + t * jnp.cos(p)) for name, p in angle.items()
    }
    groups = geometry.scale(plan, plan.select(angles), tangents)
    return plan.merge(optax.tree.scale(t, angles), groups)
