"""Timing in turns: whatever else a machine does falls on all cases alike.

Optimizers of torch are timed by it too, in environments without JAX.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["Run", "quartiles", "time_in_turns"]

LONGEST = 1.0
"""Seconds that a turn may take, unless a single step takes longer."""

Run = Callable[[int], None]
"""Takes so many steps, and returns when their results are there."""


def time_in_turns(
    runs: dict[str, Run], turns: int, steps: int
) -> dict[str, list[float]]:
    """Return seconds per step of each case, one figure a turn.

    Args:
        runs: the cases.
        turns: number of turns of each.
        steps: number of steps of a turn, at most; slow cases have fewer.
    """
    counts = {name: _steps(run, steps) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(turns):
        for name, run in runs.items():
            seconds[name].append(_time(run, counts[name]) / counts[name])
    return seconds


def _steps(run: Run, most: int) -> int:
    """Return how many steps fit into a turn. A first one warms up."""
    run(1)
    return max(1, min(most, int(LONGEST / _time(run, 1))))


def _time(run: Run, steps: int) -> float:
    start = time.perf_counter()
    run(steps)
    return time.perf_counter() - start


def quartiles(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return the quartiles of ratios that are formed turn by turn.

    Examples:
        >>> quartiles([1.0, 3.0, 2.0], [1.0, 1.0, 1.0])
        [1.5, 2.0, 2.5]
    """
    ratios = np.divide(ours, theirs)
    return np.quantile(ratios, [0.25, 0.5, 0.75]).tolist()
