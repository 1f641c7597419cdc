"""Cells of tables: results of seeds, and tuned hyperparameters."""

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["mean_and_deviation", "tuned_to"]


def mean_and_deviation(values: Sequence[float], digits: int) -> str:
    """Return mean ± standard deviation of two or more values.

    Examples:
        >>> mean_and_deviation([1.0, 2.0], digits=1)
        '1.5 ± 0.7'
    """
    mean, deviation = np.mean(values), np.std(values, ddof=1)
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def tuned_to(
    tuned: dict[str, Any], names: tuple[str, str] = ("lr ", "wd ")
) -> str:
    """Return the choice of `tune`, with a star at the edge of a grid.

    Examples:
        >>> chosen = {"learning_rate": 0.1, "weight_decay": 0.01}
        >>> tuned_to({"chosen": chosen, "at_edge": ["weight_decay"]})
        'lr 0.1, wd 0.01★'
    """
    cells = []
    for key, name in zip(("learning_rate", "weight_decay"), names, strict=True):
        if value := tuned["chosen"][key]:
            cells.append(f"{name}{value:g}" + "★" * (key in tuned["at_edge"]))
    return ", ".join(cells)
