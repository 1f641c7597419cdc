"""Timing in turns: whatever else a machine does falls on all cases alike.

Optimizers of torch are timed by it too, in environments without JAX.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

LONGEST = 1.0
"""Seconds that a turn may take, unless a single step takes longer."""

Run = Callable[[int], Any]
"""Takes so many steps, and returns when their results are there."""

Seconds = Mapping[str, Sequence[float]]
"""Seconds per step of each case, one figure a turn."""


def time_in_turns(runs: Mapping[str, Run], turns: int, steps: int) -> Seconds:
    """Time turns of so many steps, or fewer of slow cases."""
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
    return np.quantile(np.divide(ours, theirs), [0.25, 0.5, 0.75]).tolist()


def compared(name: str, baseline: str, seconds: Seconds) -> dict[str, Any]:
    """Return the row of an optimizer: its time, as a ratio to a baseline."""
    low, middle, high = quartiles(seconds[name], seconds[baseline])
    return {
        "optimizer": name,
        "baseline": baseline,
        "ratio": middle,
        "quartiles": [low, high],
        "milliseconds": 1e3 * float(np.median(seconds[name])),
    }
