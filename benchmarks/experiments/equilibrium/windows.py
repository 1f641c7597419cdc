"""Windows of steps, each longer than the last, with one number for each."""

from collections.abc import Sequence

import numpy as np

WINDOWS = 80
NEAR = 0.1


def edges(steps: int) -> np.ndarray:
    """Return the first step of each window, and the number of steps.

    Examples:
        >>> edges(4).tolist()
        [0, 1, 2, 3, 4]
        >>> len(edges(6000)), edges(6000)[-3:].tolist()
        (69, [4814, 5374, 6000])
    """
    later = np.geomspace(1, steps, WINDOWS)
    return np.unique([0, *np.rint(later).astype(int)])


def middles(steps: int) -> np.ndarray:
    """Return where to draw each window, counting steps from 1."""
    found = edges(steps)
    return np.sqrt((found[:-1] + 1.0) * found[1:])


def windows(values: np.ndarray) -> list[float]:
    """Return the RMS of each window of the rows, over all columns."""
    return np.sqrt(means(np.square(values, dtype=np.float64))).tolist()


def means(values: np.ndarray) -> list[float]:
    """Return the mean of each window of the rows, over all columns."""
    parts = np.split(values, edges(len(values))[1:-1])
    return [float(part.mean()) for part in parts]


def overall(values: Sequence[float], steps: int, first: int, end: int) -> float:
    """Return the RMS of the windows that lie within some of the steps."""
    return mean(np.square(values).tolist(), steps, first, end) ** 0.5


def mean(values: Sequence[float], steps: int, first: int, end: int) -> float:
    """Return the mean of the windows that lie within some of the steps."""
    found = edges(steps)
    inside = (found[:-1] >= first) & (found[1:] <= end)
    lengths = np.diff(found)[inside]
    return float(np.average(np.array(values)[inside], weights=lengths))


def arrival(curve: Sequence[float], end: float, steps: int) -> float | None:
    """Return the first step at which a curve is within 10 % of its end.

    It is interpolated between the middles of windows.
    """
    distance = np.abs(np.array(curve) / end - 1)
    near = np.flatnonzero(distance <= NEAR * (1 + 1e-12))
    if not near.size:
        return None
    # The first window that is near, and the one before it if there is one.
    around = slice(max(near[0] - 1, 0), near[0] + 1)
    step, distance = np.log(middles(steps)[around]), distance[around]
    return float(np.exp(np.interp(NEAR, distance[::-1], step[::-1])))
