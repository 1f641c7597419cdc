"""Weights of 16 bits, and what they are in float32: the same numbers."""

from typing import Any

import jax
import jax.numpy as jnp

from psi_optax.geometry import largest_shrinkage

HALF_DTYPES = (jnp.dtype("bfloat16"), jnp.dtype("float16"))


def is_half(x: jax.typing.ArrayLike) -> bool:
    """Whether x is of 16 bits; shapes with a dtype will do."""
    return jax.dtypes.result_type(x) in HALF_DTYPES


def upcast_half(tree: Any) -> Any:
    """The tree with narrow leaves in float32, which holds them exactly.

    Not the accumulator's `psi_optax.geometry.widen`, which casts integers too.
    """
    return jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float32) if is_half(x) else x, tree
    )


def limit_shrinkage(w: jax.Array, new: jax.Array) -> jax.Array:
    """Keeps a narrow leaf from losing its direction in one step.

    The update from w to new is added to w, so that it is off by the rounding
    of w. Where the largest magnitude of the leaf falls by more than
    `largest_shrinkage`, no weight shrinks by more than that: w over that ratio
    is representable, and later steps arrive. What becomes exactly zero does
    so, and a leaf of one weight has no direction to lose.

    Args:
        w: the leaf; shape=any, dtype=bfloat16 or float16.
        new: what the step would make of it, in float32.

    Returns:
        The new leaf, in float32; `new` itself unless it falls that far.
    """
    if w.size == 1:
        return new
    wide, ratio = upcast_half(w), largest_shrinkage([w.dtype])
    falls = _largest(new) * ratio < _largest(wide)
    least = wide / ratio
    small = (new != 0) & (jnp.abs(new) < jnp.abs(least))
    return jnp.where(falls & small, least, new)


def _largest(x: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(x), initial=0)
