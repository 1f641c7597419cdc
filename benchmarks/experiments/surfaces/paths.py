"""The loss along straight lines and geodesics between solutions."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from psi_optax.landscape import geodesic


def path(
    loss: Callable[..., jax.Array],
    ends: tuple[Any, Any],
    args: tuple[Any, ...],
    points: int,
    groups: Any,
) -> np.ndarray:
    """Return the loss at evenly spaced points; without groups of a line."""
    at = jax.jit(lambda ends, t: geodesic(ends[0], ends[1], groups)(t))
    return np.array(
        [loss(at(ends, t), *args) for t in np.linspace(0, 1, points)]
    )


def barrier(losses: Any) -> float:
    """Return the most that a path rises above the line between its ends.

    Examples:
        >>> barrier([1.0, 3.0, 2.0])
        1.5
    """
    losses = np.asarray(losses, float)
    line = np.linspace(losses[0], losses[-1], len(losses))
    return float(np.max(losses - line))
