"""The norms of groups: reading them, and setting them."""

from typing import Any

import jax
import jax.numpy as jnp

from psi_optax import geometry
from psi_optax._validation import check_flag, check_positive
from psi_optax.groups import make_plan
from psi_optax.groups.types import Tree
from psi_optax.transforms.contract import cast_like


def group_norms(params: Tree, groups: Any) -> Tree:
    """The norm of every group.

    Args:
        params: arrays.
        groups: scale groups in any form.

    Returns:
        A tree like params with an array of the group shape, float32 (float64
        for float64 weights), at grouped leaves and None elsewhere. Tied leaves
        show the norm of the joint group each.

    Raises:
        ValueError: groups do not fit params.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> params = {"kernel": jnp.array([[3.0], [4.0]]), "bias": jnp.ones(1)}
        >>> group_norms(params, {"kernel": ScaleGroup(0), "bias": None})
        {'bias': None, 'kernel': Array([5.], dtype=float32)}
    """
    plan = make_plan(groups, params)
    return plan.unflatten(geometry.norm(plan, plan.select(params)), params)


def normalize(
    params: Tree,
    groups: Any,
    radius: jax.typing.ArrayLike = 1.0,
    *,
    centered: bool = False,
) -> Tree:
    """Gives every group the same norm; the network computes what it did.

    In training mode, that is. A BatchNorm's collected mean and variance belong
    to the old norm: *evaluation* changes, until the statistics have caught up
    (hundreds of steps at momentum 0.99). So normalize before training, when
    there are none worth keeping, and never by a threshold in the middle.

    It also takes the epsilon of a normalization layer out of play: filters so
    small that epsilon counts are not scale-invariant until they are normalized.
    Groups of a normalization's own scale and bias, which the finder reports
    where another normalization follows, gain nothing by it: at norm 1 for all
    channels together the next epsilon counts more. Normalize kernels:
    `report.select(".*/kernel")`.

    Args:
        params: arrays.
        groups: scale groups in any form.
        radius: the norm, positive.
        centered: whether to subtract the mean of every group first, as in
            centered weight normalization. That is another network, unless the
            inputs of each group add up to nothing.

    Returns:
        A tree like params. Groups of norm zero (centered: of equal weights),
        which have no direction, and ordinary parameters are as before.

    Raises:
        ValueError: groups do not fit params; the radius is not positive.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> normalize(jnp.array([3.0, 4.0]), ScaleGroup(0), 10.0).tolist()
        [6.0, 8.0]
    """
    check_positive("radius", radius)
    check_flag(centered=centered)
    plan = make_plan(groups, params)
    w = plan.select(params)
    if not centered:
        on_sphere = geometry.project_to_sphere(plan, w, plan.full(radius))
        return plan.merge(params, cast_like(on_sphere, w))
    moved = geometry.center(plan, w)
    on_sphere = geometry.project_to_sphere(plan, moved, plan.full(radius))
    flat = jax.tree.map(
        _is_rounding, geometry.norm(plan, moved), geometry.norm(plan, w)
    )
    kept = {
        path: jnp.where(is_flat != 0, geometry.widen(w[path]), on_sphere[path])
        for path, is_flat in plan.broadcast(flat).items()
    }
    return plan.merge(params, cast_like(kept, w))


def _is_rounding(rest: jax.Array, norm: jax.Array) -> jax.Array:
    """1 where without its mean nothing but rounding is left of a group."""
    # A mean is off by a few roundings of it, and so is every difference.
    return (rest <= 64 * jnp.finfo(norm.dtype).eps * norm).astype(norm.dtype)
