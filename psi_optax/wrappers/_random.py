"""Keys that users pass, and random numbers like a tree."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from psi_optax.groups import Tree
from psi_optax.transforms.floating import upcast_half


def as_key(key: Any) -> jax.Array:
    """Return a typed key; an integer is a seed."""
    dtype = key.dtype if hasattr(key, "dtype") else np.asarray(key).dtype
    typed = jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not (typed or np.issubdtype(dtype, np.integer)) or np.ndim(key):
        raise TypeError(f"key={key!r}: pass an integer, or jax.random.key(0).")
    if typed:
        return key
    return jax.random.key(key)


def draw_normal(key: jax.Array, tree: Tree) -> Tree:
    """Return standard normal numbers, one for each weight.

    Args:
        key: a typed key.
        tree: arrays of floating or complex numbers.

    Returns:
        A tree of the same shapes, in float32 for 16-bit leaves.
    """

    def leaf(x: jax.Array, key: jax.Array) -> jax.Array:
        x = upcast_half(x)
        sharding = jax.typeof(x).sharding
        return jax.random.normal(key, x.shape, x.dtype, out_sharding=sharding)

    return jax.tree.map(leaf, tree, optax.tree.split_key_like(key, tree))
