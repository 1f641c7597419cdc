"""Stretches of steps, ever longer ones, that results have one number of."""

import numpy as np

from benchmarks.recording import rms

__all__ = ["arrival", "edges", "means", "middles", "windows"]

WINDOWS = 80
NEAR = 0.1


def edges(steps: int) -> np.ndarray:
    """Where stretches begin and end.

    Examples:
        >>> edges(4).tolist()
        [0, 1, 2, 3, 4]
        >>> len(edges(6000)), edges(6000)[-3:].tolist()
        (69, [4814, 5374, 6000])
    """
    later = np.geomspace(1, steps, WINDOWS)
    return np.unique([0, *np.rint(later).astype(int)])


def middles(steps: int) -> np.ndarray:
    """Where to draw each stretch, counting steps from 1."""
    found = edges(steps)
    return np.sqrt((found[:-1] + 1.0) * found[1:])


def windows(values: np.ndarray) -> list[float]:
    """The RMS of each stretch of the rows, over all columns.

    Examples:
        >>> windows(np.array([[3.0], [4.0]]))
        [3.0, 4.0]
    """
    return [float(rms(part)) for part in _parts(values)]


def means(values: np.ndarray) -> list[float]:
    """The mean of each stretch of the rows, over all columns.

    Examples:
        >>> means(np.array([[3.0, 5.0], [4.0, 4.0]]))
        [4.0, 4.0]
    """
    return [float(part.mean()) for part in _parts(values)]


def _parts(values: np.ndarray) -> list[np.ndarray]:
    return np.split(values, edges(len(values))[1:-1])


def arrival(curve: np.ndarray, end: float, steps: int) -> float | None:
    """The step at which a curve first is within 10 % of its end.

    Args:
        curve: a value for each stretch.
        end: what it settles at.
        steps: how many there are in all.

    Returns:
        The step, interpolated between the stretches' middles; None if the
        curve is never so near.

    Examples:
        >>> round(arrival(np.array([2.0, 1.3, 1.1, 1.2]), 1.0, steps=4), 6)
        3.0
    """
    far = np.abs(np.asarray(curve) / end - 1)
    near = np.flatnonzero(far <= NEAR * (1 + 1e-12))
    if not near.size:
        return None
    # Falling as far as it is interpolated in.
    last = near[0] + 1
    start = max(last - 2, 0)
    step = np.log(middles(steps)[start:last])
    return float(np.exp(np.interp(NEAR, far[start:last][::-1], step[::-1])))
