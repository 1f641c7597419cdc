"""Pilots of `psi_sgd`, and long runs of each method in each dtype."""

import dataclasses
from functools import partial
from typing import Annotated, Any

import numpy as np

from benchmarks.experiments import matched
from benchmarks.experiments.dense import listed
from benchmarks.experiments.long_runs.report import faults, figures, report
from benchmarks.experiments.long_runs.training import Runs
from benchmarks.experiments.precision.modes import MODES
from benchmarks.experiments.rotations import rms
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import (
    Count,
    Counts,
    Positive,
    at_least,
    one_of,
    some,
)
from benchmarks.harness.results import Results
from benchmarks.optimizers import MOMENTUM
from benchmarks.training import Build
from psi_optax.dynamics import equilibrium_rotation

PILOT_SEED, PILOTS, FIRST_GUESS = 2000, 3, 1.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment."""

    # Dtypes of the weights, with their wrappers.
    modes: Annotated[tuple[str, ...], some(one_of(MODES))] = (
        "float32",
        "bfloat16",
        "bfloat16, stochastic rounding",
        "bfloat16, master weights",
    )
    rate: Positive = 0.1  # Learning rate of SGD with momentum 0.9, constant.
    decay: Positive = 0.005  # Its weight decay.
    steps: Count = 10_000  # Steps from one checkpoint to the next.
    # Number of these stretches.
    stretches: Annotated[int, at_least(2)] = 20
    seeds: Count = 2  # Seeds.
    batch_size: Count = 64  # Examples in a batch.
    widths: Counts = (32, 32)  # Hidden units of each layer.


def measure(settings: Settings, results: Results) -> None:
    """Measure the pilots, and a part for each method and dtype."""
    results.expect(1 + len(matched.LABELS) * len(settings.modes))
    sizes = settings.widths, settings.batch_size, settings.steps
    runs, point = Runs(*sizes, settings.seeds), (settings.rate, settings.decay)
    norm = results.part("pilots", partial(_pilots, runs, point))
    for name, build in matched.builds(norm[-1]["corrected"]).items():
        for mode in settings.modes:
            arguments = runs, build, mode, point, settings.stretches
            results.part(f"{name}/{mode}", partial(_run, *arguments))


def _pilots(runs: Runs, point: tuple[float, float]) -> list[dict[str, Any]]:
    """Find the gradient norm of `psi_sgd`, in the second stretch of runs."""
    wanted = float(equilibrium_rotation(*point, momentum=MOMENTUM))

    def turn(build: Build, index: int) -> dict[str, float]:
        seed = PILOT_SEED + index * runs.seeds
        *_, (seen, _) = runs.run(build, "float32", point, 2, seed)
        return {"rotation": float(rms(np.asarray(seen.rotation)))}

    return matched.pilots(turn, wanted, FIRST_GUESS, PILOTS)


def _run(runs: Runs, *arguments: Any) -> dict[str, Any]:
    """Return values by name, each a list by stretch and seed."""
    found: dict[str, list] = {}
    for seen, accuracy in runs.run(*arguments):
        for name, value in {**seen._asdict(), "accuracy": accuracy}.items():
            found.setdefault(name, []).append(np.asarray(value, float))
    return {name: listed(np.array(value), 5) for name, value in found.items()}


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(
        modes=("bfloat16",), steps=20, stretches=2, seeds=1, widths=(8,)
    ),
    measure=measure,
    report=report,
    page="experiments/long-runs.md",
    figures=figures,
    faults=faults,
)
