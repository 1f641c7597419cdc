"""Sums over the scale groups of one leaf, and the way back.

A leaf is an array of weights; its *group shape* is what remains of its shape
when every axis along which a group lies is summed over, and a blocked axis
leaves one entry per block. `sum_groups` goes from the leaf to the group shape,
`broadcast_groups` is its transpose and goes back. Neither reshapes the leaf, so
both work whichever of its axes are sharded.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

Blocks = Sequence[tuple[int, int]]


def accumulation_dtype(dtype: jax.typing.DTypeLike) -> jnp.dtype:
    """The dtype in which norms and inner products of `dtype` are formed."""
    wide = jnp.dtype(dtype) == jnp.float64
    return jnp.dtype(jnp.float64 if wide else jnp.float32)


def to_accumulator(x: jax.typing.ArrayLike) -> jax.Array:
    """Casts a leaf to its accumulator."""
    return jnp.asarray(x, accumulation_dtype(jnp.asarray(x).dtype))


def sum_groups(x: jax.Array, axes: Sequence[int], blocks: Blocks) -> jax.Array:
    """Sums a leaf over its groups.

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
    """Lays one scalar per group out so that it broadcasts against the leaf.

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
    spread = jnp.expand_dims(s, _unblocked(axes, blocks))
    for axis, count in blocks:
        member = _membership(spread.ndim, axis, count, shape[axis])
        rows = jnp.where(member, jnp.expand_dims(spread, axis + 1), 0)
        spread = jnp.sum(rows, axis=axis)
    return spread


def _unblocked(axes: Sequence[int], blocks: Blocks) -> tuple[int, ...]:
    blocked = {axis for axis, _ in blocks}
    return tuple(axis for axis in axes if axis not in blocked)


def _membership(rank: int, axis: int, count: int, length: int) -> jax.Array:
    """Which position along `axis` lies in which block.

    A mask in place of a reshape: cutting a sharded axis in two is not possible
    unless the shards happen to be the blocks.
    """
    shape = [1] * (rank + 1)
    shape[axis : axis + 2] = count, length
    block = jax.lax.broadcasted_iota(jnp.int32, shape, axis)
    position = jax.lax.broadcasted_iota(jnp.int32, shape, axis + 1)
    return position // max(length // count, 1) == block
