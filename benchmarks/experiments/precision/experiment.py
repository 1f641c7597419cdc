"""All turns, and all runs whose norms are followed."""

import dataclasses
from typing import Annotated

from benchmarks.experiments.precision.modes import MODES
from benchmarks.experiments.precision.norms import RUNS, STRETCHES, norms
from benchmarks.experiments.precision.report import report
from benchmarks.experiments.precision.turns import turns
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Count, Positives, at_least, one_of, some
from benchmarks.harness.results import Results


@dataclasses.dataclass(frozen=True)
class Settings:
    """Modes, angles and numbers of steps.

    Attributes:
        modes: Dtypes of the weights, with their wrappers.
        angles: Radians a step along great circles.
        turns: Number of these steps.
        steps: Number of noisy steps, 100 or more.
    """

    modes: Annotated[tuple[str, ...], some(one_of(MODES))] = tuple(MODES)
    angles: Positives = (1e-2, 3e-3, 1e-3, 1e-4, 1e-5)
    turns: Count = 1000
    steps: Annotated[int, at_least(STRETCHES)] = 1_000_000


def measure(settings: Settings, results: Results) -> None:
    """Measure turns, by mode and angle, and a list of norms."""
    modes, angles = settings.modes, settings.angles
    runs = [run for run in RUNS if run.mode in modes]
    results.expect(2)
    results.part("turns", lambda: turns(modes, angles, settings.turns))
    results.part("norms", lambda: [norms(run, settings.steps) for run in runs])


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(("bfloat16, master weights",), (1e-2,), 20, STRETCHES),
    measure=measure,
    report=report,
    page="precision.md",
)
