"""Sums over the scale groups of one leaf, and their transpose.

A leaf is an array of weights. Its *group shape* is what remains of its shape
when every axis along which a group lies is summed over; a blocked axis leaves
one entry per block. `sum_groups` maps a leaf to the group shape, and
`broadcast_groups` is its transpose. Neither reshapes the leaf, so both work
whichever of its axes are sharded.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from psi_optax import _compat
from psi_optax._text import summarize

Blocks = Sequence[tuple[int, int]]
AxisName = str | tuple[str, ...] | None


def accumulation_dtype(dtype: jax.typing.DTypeLike) -> jnp.dtype:
    """Return the dtype of norms and inner products of leaves of `dtype`."""
    wide = jnp.dtype(dtype) == jnp.float64
    return jnp.dtype(jnp.float64 if wide else jnp.float32)


def to_accumulator(x: jax.typing.ArrayLike) -> jax.Array:
    """Cast a leaf to its accumulation dtype."""
    return jnp.asarray(x, accumulation_dtype(jnp.asarray(x).dtype))


def first_in_groups(
    x: jax.Array, axes: Sequence[int], blocks: Blocks
) -> jax.Array:
    """Return the first element of every group of a leaf; zero of none.

    Args:
        x: any shape.
        axes: as in `sum_groups`.
        blocks: as in `sum_groups`.

    Returns:
        An array of the group shape.

    Examples:
        >>> first_in_groups(jnp.arange(6), axes=(0,), blocks=()).tolist()
        0
        >>> first_in_groups(jnp.arange(6), axes=(0,), blocks=((0, 3),)).tolist()
        [0, 2, 4]
    """
    if x.size == 0:
        return sum_groups(x, axes, blocks)
    counts = dict(blocks)
    starts, limits, strides = [0] * x.ndim, list(x.shape), [1] * x.ndim
    for axis in axes:
        strides[axis] = x.shape[axis] // counts.get(axis, 1)
        limits[axis] = x.shape[axis] if axis in counts else 1
    first = jax.lax.slice(x, starts, limits, strides)
    return jax.lax.squeeze(first, _unblocked(axes, blocks))


def sum_groups(x: jax.Array, axes: Sequence[int], blocks: Blocks) -> jax.Array:
    """Sum a leaf over its groups.

    Args:
        x: any shape; its dtype is the dtype of the sum.
        axes: distinct, non-negative axes along which a group lies.
        blocks: pairs (axis, n), the axis among `axes`, n dividing its length.

    Returns:
        An array of the group shape.

    Examples:
        >>> sum_groups(jnp.ones((6, 2)), axes=(0,), blocks=()).tolist()
        [6.0, 6.0]
        >>> sum_groups(jnp.arange(6.0), axes=(0,), blocks=((0, 3),)).tolist()
        [1.0, 5.0, 9.0]
    """
    whole = _unblocked(axes, blocks)
    total = jnp.sum(x, axis=whole, keepdims=True)
    for axis, count in blocks:
        member = _membership(total.ndim, axis, count, total.shape[axis])
        rows = jnp.where(member, jnp.expand_dims(total, axis), 0)
        total = jnp.sum(rows, axis=axis + 1)
    return jnp.squeeze(total, whole)


def broadcast_groups(
    s: jax.Array, shape: Sequence[int], axes: Sequence[int], blocks: Blocks
) -> jax.Array:
    """Return scalars of groups as an array that broadcasts against the leaf.

    Args:
        s: an array of the group shape.
        shape: the shape of the leaf.
        axes: as in `sum_groups`.
        blocks: as in `sum_groups`.

    Returns:
        An array of the leaf's rank, of length 1 along the unblocked `axes`.

    Examples:
        >>> broadcast_groups(jnp.array([1.0, 2.0]), (4, 2), (0,), ()).shape
        (1, 2)
        >>> blocks = ((0, 2),)
        >>> broadcast_groups(jnp.array([1.0, 2.0]), (4,), (0,), blocks).tolist()
        [1.0, 1.0, 2.0, 2.0]
    """
    x = jnp.expand_dims(s, _unblocked(axes, blocks))
    for axis, count in blocks:
        member = _membership(x.ndim, axis, count, shape[axis])
        rows = jnp.where(member, jnp.expand_dims(x, axis + 1), 0)
        x = jnp.sum(rows, axis=axis)
    return x


def _unblocked(axes: Sequence[int], blocks: Blocks) -> tuple[int, ...]:
    blocked = {axis for axis, _ in blocks}
    return tuple(axis for axis in axes if axis not in blocked)


def _membership(rank: int, axis: int, count: int, length: int) -> jax.Array:
    """Return a mask of the positions along `axis` that lie in each block.

    A reshape would cut a sharded axis in two, which fails unless the shards
    happen to be the blocks.
    """
    shape = [1] * (rank + 1)
    shape[axis : axis + 2] = count, length
    block = jax.lax.broadcasted_iota(jnp.int32, shape, axis)
    position = jax.lax.broadcasted_iota(jnp.int32, shape, axis + 1)
    return position // max(length // count, 1) == block


def sum_over_mesh(part: jax.Array, axis_name: AxisName, leaf: str) -> jax.Array:
    """Add the shards of a sum, inside `shard_map` or `pmap`.

    Args:
        part: the sum over this device's shard.
        axis_name: of the leaf's `ScaleGroup`.
        leaf: how an error names the leaf.

    Raises:
        ValueError: `axis_name` names an axis that does not exist here.
    """
    names = _bound_axes(axis_name, leaf)
    return jax.lax.psum(part, names) if names else part


def total_mesh_size(axis_name: AxisName, leaf: str) -> int:
    """Return the number of shards that the groups of a leaf are cut into."""
    names = _bound_axes(axis_name, leaf)
    return math.prod(jax.lax.axis_size(name) for name in names)


def _bound_axes(axis_name: AxisName, leaf: str) -> tuple[str, ...]:
    """Return the manual mesh axes over which a leaf is sharded here."""
    if axis_name is None:
        return ()
    names = (axis_name,) if isinstance(axis_name, str) else axis_name
    unbound = [name for name in names if not _is_bound(name)]
    if not unbound:
        return names
    # Outside of shard_map and pmap no name is bound, and the leaf is whole.
    manual = _compat.manual_axes()
    if not manual and len(unbound) == len(names):
        return ()
    raise ValueError(
        f"{leaf}: there is no mesh axis"
        f" {summarize([repr(name) for name in unbound])} here; those that are"
        f" manual are {manual}."
    )


def _is_bound(name: str) -> bool:
    try:
        jax.lax.axis_size(name)
    except NameError:
        return False
    return True
