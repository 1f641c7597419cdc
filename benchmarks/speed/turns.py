"""Timing in turns: other work on the machine affects all cases alike.

Optimizers of torch are timed by it too, in environments without JAX.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

LONGEST = 1.0
"""Seconds that a turn may take, unless a single step takes longer."""

Run = Callable[[int], Any]
"""Takes so many steps, and returns when their results are there."""

Seconds = Mapping[str, Sequence[float]]
"""Seconds per step of each case, one figure a turn."""


class Times(NamedTuple):
    """Times of steps by two clocks.

    Attributes:
        wall: elapsed time.
        cpu: CPU time of all threads of this process. Other work on the machine
            adds less to it.
    """

    wall: Seconds
    cpu: Seconds


def time_in_turns(runs: Mapping[str, Run], turns: int, steps: int) -> Times:
    """Time turns of so many steps, or fewer of slow cases."""
    counts = {name: _steps(run, steps) for name, run in runs.items()}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(turns):
        for name, run in runs.items():
            found[name].append(_time(run, counts[name]))

    def seconds(clock: int) -> Seconds:
        return {x: [t[clock] / counts[x] for t in found[x]] for x in found}

    return Times(seconds(0), seconds(1))


def _steps(run: Run, most: int) -> int:
    """Return how many steps fit into a turn. A first one warms up."""
    run(1)
    return max(1, min(most, int(LONGEST / _time(run, 1)[0])))


def clocks() -> tuple[float, float]:
    """Return the elapsed time and the CPU time of this process, in seconds."""
    return time.perf_counter(), time.process_time()


def _time(run: Run, steps: int) -> tuple[float, float]:
    wall, cpu = clocks()
    run(steps)
    then = clocks()
    return then[0] - wall, then[1] - cpu


def quartiles(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return the quartiles of ratios that are formed turn by turn.

    Examples:
        >>> quartiles([1.0, 3.0, 2.0], [1.0, 1.0, 1.0])
        [1.5, 2.0, 2.5]
    """
    return np.quantile(np.divide(ours, theirs), [0.25, 0.5, 0.75]).tolist()


def compared(name: str, baseline: str, times: Times) -> dict[str, Any]:
    """Return the row of an optimizer: ratios to a baseline, by both clocks."""

    def ratio(seconds: Seconds) -> dict[str, Any]:
        low, middle, high = quartiles(seconds[name], seconds[baseline])
        time = 1e3 * float(np.median(seconds[name]))
        return {"ratio": middle, "quartiles": [low, high], "milliseconds": time}

    clocks = {clock: ratio(found) for clock, found in times._asdict().items()}
    return {"optimizer": name, "baseline": baseline, **clocks}
