"""Tuning of SGD, pilots of `psi_sgd`, and the comparison.

`psi_sgd` has to be told the norm of its gradients. Pilots find it: runs at the
held rate from other seeds, which see no test data.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np

from benchmarks import training
from benchmarks.data import NAMES, Dataset, hold_out, load
from benchmarks.experiments.held_rate import (
    held_steps,
    hold_then_decay,
    transient_steps,
)
from benchmarks.experiments.matched import LABELS, builds, psi_sgd
from benchmarks.experiments.matching.report import faults, figures, report
from benchmarks.experiments.rotations import make_recorded, rms
from benchmarks.experiments.tuning import tune
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Count, Positives, at_least, one_of, some
from benchmarks.harness.results import Results
from benchmarks.optimizers import MOMENTUM, TUNED, Tuned
from psi_optax.dynamics import equilibrium_rotation
from psi_optax.models import linen

# Far from the seeds of the final runs, which start at 0.
TUNING_SEED, PILOT_SEED = 1000, 2000

FIRST_GUESS = 1.0
"""The gradient norm of the first pilot."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of the experiment.

    Attributes:
        dataset: Data set.
        seeds: Seeds in tuning, in each pilot and in the comparison.
        epochs: Epochs of each training.
        pilots: Pilots, one after the other.
        batch_size: Examples in a batch.
        widths: Hidden units of each layer.
        rates: Learning rates that SGD is tuned on.
        decays: Weight decays that SGD is tuned on.
    """

    dataset: Annotated[str, one_of(NAMES)] = "digits"
    seeds: Annotated[int, at_least(2)] = 10
    epochs: Count = 40
    pilots: Count = 4
    batch_size: Count = 64
    widths: Annotated[tuple[int, ...], some(at_least(1))] = (64, 64)
    rates: Positives = TUNED["sgd_decay"].rates
    decays: Positives = TUNED["sgd_decay"].decays


class _Runs:
    """Training on one split, from one set of seeds."""

    def __init__(self, settings: Settings, dataset: Dataset, first_seed: int):
        seeds = range(first_seed, first_seed + settings.seeds)
        model = linen.MLP(
            settings.widths, dataset.num_classes, epsilon=1e-5, momentum=0.9
        )
        size = len(dataset.train_labels)
        self.variables = training.initialize(model, dataset.train_images, seeds)
        self.batches = training.make_batches(
            size, settings.batch_size, settings.epochs, seeds
        )
        self.evaluate = training.make_evaluate(model, dataset)
        self.record = functools.partial(make_recorded, model, dataset=dataset)

    def compile(self, build: training.Build, schedule: Any = hold_then_decay):
        """Return a function of rate and decay: variables, rotations."""
        train = self.record(build, schedule=schedule)
        return functools.partial(train, self.variables, self.batches)


class _Point(NamedTuple):
    """The tuned values, and the steps at the held rate that count."""

    rate: float
    decay: float
    settled: slice


def measure(settings: Settings, results: Results) -> None:
    """Tune SGD, match its rotation, and train."""
    full = load(settings.dataset)
    method = dataclasses.replace(
        TUNED["sgd_decay"], rates=settings.rates, decays=settings.decays
    )
    trials = len(method.trials())
    results.expect(trials + settings.pilots + len(LABELS))
    runs = functools.partial(_Runs, settings)

    def tuning() -> Any:
        return _tune(runs(hold_out(full), TUNING_SEED), method, results.tick)

    chosen = results.part("tuning", tuning, trials)["chosen"]
    rate, decay = chosen["learning_rate"], chosen["weight_decay"]
    final = runs(full, 0)
    schedule = functools.partial(_schedule, rate, decay, final.batches.shape[1])
    found = results.part("schedule", schedule, 0)
    point = _Point(rate, decay, slice(found["transient"], found["held"]))

    def pilots() -> Any:
        seeds = PILOT_SEED + settings.seeds * np.arange(settings.pilots)
        others = (runs(full, int(seed)) for seed in seeds)
        return _pilots(others, point, results.tick)

    norm = results.part("pilots", pilots, settings.pilots)[-1]["corrected"]
    for name, build in builds(norm).items():
        compare = functools.partial(_compare, name, final, build, point)
        results.part(name, compare)


def _tune(runs: _Runs, method: Tuned, advance: Callable) -> dict[str, Any]:
    train = runs.compile(method.build)
    return tune(method, lambda *trial: runs.evaluate(train(*trial)[0]), advance)


def _schedule(rate: float, decay: float, steps: int) -> dict[str, Any]:
    held = held_steps(steps)
    rates = hold_then_decay(rate, steps)(np.arange(steps))
    return {
        "steps": steps,
        "held": held,
        "transient": transient_steps(rate, decay, held),
        "predicted": _predicted(rates, decay).tolist(),
    }


def _pilots(
    several: Iterable[_Runs], point: _Point, advance: Callable
) -> list[dict[str, float]]:
    """Train `psi_sgd` at the held rate, and correct its gradient norm."""
    found, norm = [], FIRST_GUESS
    wanted = float(_predicted(point.rate, point.decay))
    for runs in several:
        runs.batches = runs.batches[:, : point.settled.stop]
        train = runs.compile(psi_sgd(norm), lambda rate, _: rate)
        _, angles = train(point.rate, point.decay)
        seen = rms(angles[:, point.settled], (1, 2))
        turned = float(rms(seen))
        pilot = {"gradient_norm": norm, "rotation": turned}
        norm *= math.tan(turned) / math.tan(wanted)
        pilot |= {"spread": float(seen.std(ddof=1)), "wanted": wanted}
        found.append({**pilot, "corrected": norm})
        advance()
    return found


def _compare(
    name: str, runs: _Runs, build: Callable, point: _Point
) -> dict[str, Any]:
    """Return rotations in radians a step, and the accuracy of each seed."""
    variables, angles = runs.compile(build)(point.rate, point.decay)
    filters = rms(angles[:, point.settled], 1)
    return {
        "label": LABELS[name],
        "curve": rms(angles, (0, 2)).tolist(),
        "filters": np.quantile(filters, (0.1, 0.9)).tolist(),
        "accuracy": np.asarray(runs.evaluate(variables)[0], float).tolist(),
    }


def _predicted(rate: jax.typing.ArrayLike, decay: float) -> np.ndarray:
    """Return the rotation at which SGD with decay settles."""
    return np.asarray(equilibrium_rotation(rate, decay, momentum=MOMENTUM))


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(
        *("digits", 2, 2, 1), widths=(8,), rates=(0.3,), decays=(0.1,)
    ),
    measure=measure,
    report=report,
    page="matching-weight-decay.md",
    figures=figures,
    faults=faults,
)
