"""Reductions over all shards of an array, inside `shard_map` as well.

An array that varies over manual mesh axes has other entries on other devices.
Each function reduces over the entries of all of them.
"""

import jax
import jax.numpy as jnp

from psi_optax import _compat


def total(x: jax.Array) -> jax.Array:
    """Return the sum of all entries."""
    axes = _varying_axes(x)
    return jax.lax.psum(jnp.sum(x), axes) if axes else jnp.sum(x)


def totals(*arrays: jax.Array) -> jax.Array:
    """Return the sums of all entries of arrays of one shape."""
    rows = jnp.stack(arrays)
    axes = _varying_axes(rows)
    sums = jnp.sum(rows, axis=tuple(range(1, rows.ndim)))
    return jax.lax.psum(sums, axes) if axes else sums


def minimum(x: jax.Array) -> jax.Array:
    """Return the least entry."""
    axes = _varying_axes(x)
    return jax.lax.pmin(jnp.min(x), axes) if axes else jnp.min(x)


def maximum(x: jax.Array) -> jax.Array:
    """Return the greatest entry."""
    axes = _varying_axes(x)
    return jax.lax.pmax(jnp.max(x), axes) if axes else jnp.max(x)


def mean(x: jax.Array) -> jax.Array:
    """Return the mean of all entries."""
    return total(x) / total(jnp.ones_like(x))


def _varying_axes(x: jax.Array) -> tuple[str, ...]:
    """Return the manual mesh axes over which x differs."""
    return tuple(sorted(_compat.varying_axes(jax.typeof(x))))
