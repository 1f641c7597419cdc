"""Steps that weights of 16 bits can represent."""

import jax
import jax.numpy as jnp

from psi_optax.geometry._scheduling import apart
from psi_optax.geometry.rounding import rounding_shrinkage_limit
from psi_optax.transforms.floating import upcast_half


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
