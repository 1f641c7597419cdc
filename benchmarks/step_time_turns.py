"""Timing in turns, so that what else a machine does falls on all cases alike.

Nothing here needs JAX: torch's optimizers are timed by the same functions, in
an environment of their own.
"""

import statistics
import time
from collections.abc import Callable, Sequence

__all__ = ["quartiles", "time_in_turns"]

LONGEST = 1.0
"""Seconds that a turn may take, unless a single step takes longer."""

Run = Callable[[int], None]
"""Takes so many steps, and returns when their results are there."""


def time_in_turns(
    runs: dict[str, Run], turns: int, steps: int
) -> dict[str, list[float]]:
    """Seconds per step of each case, one figure a turn.

    Args:
        runs: the cases.
        turns: how often each has its turn.
        steps: how many steps a turn has at most; slow cases have fewer.
    """
    counts = {name: _steps(run, steps) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(turns):
        for name, run in runs.items():
            seconds[name].append(_time(run, counts[name]) / counts[name])
    return seconds


def _steps(run: Run, most: int) -> int:
    """How many steps fit into a turn. A first one warms up."""
    run(1)
    return max(1, min(most, int(LONGEST / _time(run, 1))))


def _time(run: Run, steps: int) -> float:
    start = time.perf_counter()
    run(steps)
    return time.perf_counter() - start


def quartiles(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Lower quartile, median and upper quartile of ratios, turn by turn.

    Args:
        ours: a figure for each turn.
        theirs: as many.

    Examples:
        >>> quartiles([1.0, 3.0, 2.0], [1.0, 1.0, 1.0])
        [1.5, 2.0, 2.5]
    """
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    if len(ratios) == 1:
        return ratios * 3
    return statistics.quantiles(ratios, n=4, method="inclusive")
