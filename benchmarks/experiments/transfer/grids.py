"""The parts of a row: rates a factor of two apart, extended at an edge."""

from collections.abc import Callable
from typing import Any

from benchmarks.experiments.transfer.curves import curve

CHOICE = "validation"
"""The part of the data whose loss chooses rates, decays and extensions."""


def rates(low: int, count: int) -> list[float]:
    """Return learning rates from a power of two on.

    Examples:
        >>> rates(-3, 4)
        [0.125, 0.25, 0.5, 1.0]
    """
    return [2.0**power for power in range(low, low + count)]


def extend(
    measure: Callable[[int, list[float]], dict[str, Any]],
    low: int,
    *,
    count: int,
    more: int,
    extensions: int,
) -> list[dict[str, Any]]:
    """Measure the part of a grid, and those of its extensions.

    While the best rate is at an edge, `more` rates beyond it follow. The parts
    depend on the losses alone, so that a run that was stopped goes on.

    Args:
        measure: returns the part of an index and of rates.
        low: power of two that is the lowest rate.
        count: number of rates of the first part.
        more: number of rates of an extension.
        extensions: largest number of these.

    Returns:
        All parts.
    """
    found, high = [measure(0, rates(low, count))], low + count
    for index in range(1, extensions + 1):
        edge = curve(found, CHOICE).edge
        if not edge:
            break
        low, high = (low - more, high) if edge < 0 else (low, high + more)
        begin = low if edge < 0 else high - more
        found.append(measure(index, rates(begin, more)))
    return found
