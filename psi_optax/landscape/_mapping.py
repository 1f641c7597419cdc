"""Evaluation at several points, on the host or in a loop on the device."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def map_points(function: Callable[[Any], Any], points: jax.Array) -> Any:
    """Apply a function to each point, and stack the results.

    While a program is traced, a loop on the device runs over the points.
    Otherwise the loop is on the host, since XLA for CPUs makes convolutions in
    loops slow.
    """
    if _is_traced():
        return jax.lax.map(function, points)
    return jax.tree.map(lambda *x: jnp.stack(x), *map(function, points))


def _is_traced() -> bool:
    """Return whether operations are traced, in which case zeros are, too."""
    return isinstance(jnp.zeros([]), jax.core.Tracer)
