"""Points of the grid, and the sizes of regions of it."""

import numpy as np

__all__ = ["DECADES", "points", "widths"]

DECADES = 0.5
"""Decades from one rate to the next."""


def points(
    lowest_rate: float, lowest_decay: float, rates: int, decays: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return rates, half a decade apart, and decays, a decade apart.

    Examples:
        >>> rates, decays = points(0.01, 0.1, 3, 2)
        >>> rates.round(3).tolist(), decays.tolist()
        ([0.01, 0.032, 0.1], [0.1, 1.0])
    """
    return (
        lowest_rate * 10.0 ** (DECADES * np.arange(rates)),
        lowest_decay * 10.0 ** np.arange(decays),
    )


def widths(good: np.ndarray) -> dict[str, float]:
    """Return the size of a region, booleans `(scales, rates, decays)`.

    It is the share of all points, and the decades of rates at the best decay:
    the mean over scales, each with its own best decay, and those of rates that
    are good at every scale with one decay.

    Examples:
        >>> good = np.array([[[1], [1], [0]], [[0], [1], [1]]], bool)
        >>> {name: round(width, 2) for name, width in widths(good).items()}
        {'share': 0.67, 'at one scale': 1.0, 'at all scales': 0.5}
    """
    at_one = good.sum(1).max(1).mean()
    at_all = good.all(0).sum(0).max()
    return {
        "share": float(good.mean()),
        "at one scale": float(DECADES * at_one),
        "at all scales": float(DECADES * at_all),
    }
