"""Weights of 16 bits, and their exact copies in float32."""

from typing import Any

import jax
import jax.numpy as jnp

from psi_optax.geometry._scheduling import apart
from psi_optax.geometry.rounding import rounding_shrinkage_limit

HALF_DTYPES = (jnp.dtype("bfloat16"), jnp.dtype("float16"))


def is_half(x: jax.typing.ArrayLike) -> bool:
    """Return whether x, an array or a shape with a dtype, has 16 bits."""
    return jax.dtypes.result_type(x) in HALF_DTYPES


def upcast_half(tree: Any) -> Any:
    """Return the tree with 16-bit leaves cast to float32, which is exact.

    Unlike `to_accumulator` it leaves integers.
    """
    return jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float32) if is_half(x) else x, tree
    )


def limit_shrinkage(w: jax.Array, new: jax.Array) -> jax.Array:
    """Limit one step so that a 16-bit leaf keeps its direction.

    The update from w to new is added to w, so its error is the rounding of w.
    If the largest magnitude of the leaf falls by more than
    `rounding_shrinkage_limit`, no weight shrinks by more than that ratio: w
    over it is representable, and later steps arrive. Exact zeros stay exact. A
    leaf of one weight has no direction to lose.

    Args:
        w: the leaf; shape=any, dtype=bfloat16 or float16.
        new: the leaf after the step, in float32.

    Returns:
        The new leaf, in float32; `new` itself unless it falls that far.
    """
    if w.size == 1:
        return new
    wide, ratio = upcast_half(w), rounding_shrinkage_limit([w.dtype])
    falls = _largest(new) * ratio < _largest(w)
    least = wide / ratio
    # The magnitude of `new` would be written out for two users.
    bound = jnp.abs(least)
    small = (new != 0) & (-bound < new) & (new < bound)
    return jnp.where(falls & small, least, new)


def _largest(x: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(upcast_half(apart(x))), initial=0)
