"""Points of the grid, and the sizes of regions of it."""

from typing import Any

import numpy as np

DECADES = 0.5
"""Decades from one rate to the next; decays are a decade apart."""


def points(settings: dict[str, Any], name: str) -> list[np.ndarray]:
    """Return the rates and the decays of an optimizer."""
    rate, decay = settings["lowest_rate"], settings["lowest_decay"]
    if "adam" in name:
        rate, decay = rate / 10, 100 * decay
    rates = 10.0 ** (DECADES * np.arange(settings["rates"]))
    return [rate * rates, decay * 10.0 ** np.arange(settings["decays"])]


def widths(good: np.ndarray) -> tuple[float, float, float]:
    """Return the size of a region, booleans `(scales, rates, decays)`.

    It is the share of all points, and the decades of rates at the best decay:
    the mean over scales, each with its own best decay, and those of rates that
    are good at every scale with one decay.

    Examples:
        >>> good = np.array([[[1], [1], [0]], [[0], [1], [1]]], bool)
        >>> [round(width, 2) for width in widths(good)]
        [0.67, 1.0, 0.5]
    """
    at_one = good.sum(1).max(1).mean()
    at_all = good.all(0).sum(0).max()
    return float(good.mean()), float(DECADES * at_one), float(DECADES * at_all)
