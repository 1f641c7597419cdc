"""Tuning of SGD, pilots of `psi_sgd`, and the comparison.

`psi_sgd` has to be told the norm of its gradients. Pilots find it: runs at the
held rate from other seeds, which see no test data.
"""

import dataclasses
import functools
from typing import Annotated, Any

import numpy as np

from benchmarks import training
from benchmarks.data import NAMES, hold_out, load
from benchmarks.experiments import matched, tuning
from benchmarks.experiments.held_rate import (
    held_steps,
    hold_then_decay,
    transient_steps,
)
from benchmarks.experiments.matching import report
from benchmarks.experiments.rotations import make_recorded, rms
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import (
    Count,
    Counts,
    Positives,
    at_least,
    one_of,
)
from benchmarks.harness.results import Results
from benchmarks.optimizers import MOMENTUM, TUNED
from benchmarks.training import Build
from psi_optax.dynamics import equilibrium_rotation
from psi_optax.models import linen

PILOT_SEED = 2000  # far from those of tuning and of the final runs
FIRST_GUESS = 1.0  # the gradient norm of the first pilot


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of the experiment."""

    dataset: Annotated[str, one_of(NAMES)] = "digits"  # Data set.
    # Seeds in tuning, in each pilot and in the comparison.
    seeds: Annotated[int, at_least(2)] = 10
    epochs: Count = 40  # Epochs of each training.
    pilots: Count = 4  # Pilots, one after the other.
    batch_size: Count = 64  # Examples in a batch.
    # Hidden units of each layer.
    widths: Counts = (64, 64)
    # Learning rates that SGD is tuned on.
    rates: Positives = TUNED["sgd_decay"].rates
    # Weight decays that SGD is tuned on.
    decays: Positives = TUNED["sgd_decay"].decays


def measure(settings: Settings, results: Results) -> None:
    """Tune SGD, match its rotation, and train."""
    runs = _Runs(settings, results)
    trials, pilots = len(runs.method.trials()), settings.pilots
    results.expect(trials + pilots + len(matched.LABELS))
    results.part("tuning", runs.tune, trials)
    results.part("schedule", runs.schedule, 0)
    norm = results.part("pilots", runs.pilots, pilots)[-1]["corrected"]
    for name, build in matched.builds(norm).items():
        results.part(name, functools.partial(runs.compare, name, build))


class _Runs:
    """Parts, each of which uses those that were measured before it."""

    def __init__(self, settings: Settings, results: Results):
        self.settings, self.results = settings, results
        self.parts, self.data = results.content["parts"], load(settings.dataset)
        self.method = dataclasses.replace(
            TUNED["sgd_decay"], rates=settings.rates, decays=settings.decays
        )

    def tune(self) -> dict[str, Any]:
        """Try all pairs of a rate and a decay, on validation data."""
        split, build = hold_out(self.data), self.method.build
        train, evaluate = self._compile(split, build, tuning.TUNING_SEED)

        def validate(rate: float, decay: float) -> Any:
            return evaluate(train(rate, decay)[0])

        return tuning.tune(self.method, validate, self.results.tick)

    def schedule(self) -> dict[str, Any]:
        """Return how long the rate is held, and rotations as predicted."""
        batches = len(self.data.train_labels) // self.settings.batch_size
        steps = self.settings.epochs * batches
        held, (rate, decay) = held_steps(steps), self._point
        rates = hold_then_decay(rate, steps)(np.arange(steps))
        return {
            "steps": steps,
            "held": held,
            "transient": transient_steps(rate, decay, held),
            "predicted": _predicted(rates, decay).tolist(),
        }

    def pilots(self) -> list[dict[str, float]]:
        """Train `psi_sgd` at the held rate, and correct its gradient norm."""
        wanted, held = float(_predicted(*self._point)), lambda rate, _: rate

        def turn(build: Build, index: int) -> dict[str, float]:
            seed = PILOT_SEED + self.settings.seeds * index
            train, _ = self._compile(self.data, build, seed, held)
            angles = train(*self._point, steps=self._settled.stop)[1]
            seen = rms(angles[:, self._settled], (1, 2))
            self.results.tick()
            found = {"rotation": rms(seen), "spread": seen.std(ddof=1)}
            return {**found, "wanted": wanted}

        return matched.pilots(turn, wanted, FIRST_GUESS, self.settings.pilots)

    def compare(self, name: str, build: Build) -> dict[str, Any]:
        """Return rotations in radians a step, and the accuracy of each seed."""
        train, evaluate = self._compile(self.data, build)
        variables, angles = train(*self._point)
        filters = rms(angles[:, self._settled], 1)
        return {
            "label": matched.LABELS[name],
            "curve": rms(angles, (0, 2)).tolist(),
            "filters": np.quantile(filters, (0.1, 0.9)).tolist(),
            "accuracy": np.asarray(evaluate(variables)[0], float).tolist(),
        }

    @property
    def _point(self) -> tuple[float, float]:
        """The tuned rate and decay."""
        return tuning.point(self.parts["tuning"])

    @property
    def _settled(self) -> slice:
        """The steps at the held rate that count."""
        found = self.parts["schedule"]
        return slice(found["transient"], found["held"])

    def _compile(self, dataset, build, seed=0, schedule=hold_then_decay):
        """Return training, of a rate and a decay, and the evaluation."""
        sizes = self.settings.batch_size, self.settings.epochs
        seeds = range(seed, seed + self.settings.seeds)
        norms = {"epsilon": 1e-5, "momentum": 0.9}
        model = linen.MLP(self.settings.widths, dataset.num_classes, **norms)
        images = dataset.train_images
        variables, batches = training.begin(model, images, seeds, *sizes)
        train = make_recorded(model, build, dataset, schedule)

        def run(rate, decay, steps=None):
            return train(variables, batches[:, :steps], rate, decay)

        return run, training.make_evaluate(model, dataset)


def _predicted(rate: Any, decay: float) -> np.ndarray:
    """Return the rotation at which SGD with decay settles."""
    return np.asarray(equilibrium_rotation(rate, decay, momentum=MOMENTUM))


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(
        *("digits", 2, 2, 1), widths=(8,), rates=(0.3,), decays=(0.1,)
    ),
    measure=measure,
    report=report.report,
    page="matching-weight-decay.md",
    figures=report.figures,
    faults=report.faults,
)
