"""Keys that users pass, and random numbers like a tree."""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax.groups import Tree
from psi_optax.groups.paths import map_with_path
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

    Those of a leaf depend on the key and on its path, not on other leaves.

    Args:
        key: a typed key.
        tree: arrays of floating or complex numbers.

    Returns:
        A tree of the same shapes, in float32 for 16-bit leaves.
    """

    def leaf(path: str, x: jax.Array) -> jax.Array:
        x = upcast_half(x)
        here = jax.random.fold_in(key, zlib.crc32(path.encode()))
        sharding = jax.typeof(x).sharding
        return jax.random.normal(here, x.shape, x.dtype, out_sharding=sharding)

    return map_with_path(leaf, tree)
