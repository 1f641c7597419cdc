"""Descent at the theorems' rates, at multiples, and from other scales."""

import dataclasses
from functools import partial
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np

from benchmarks import data
from benchmarks.experiments.convergence import descent, report
from benchmarks.experiments.convergence.smoothness import Smoothness
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Count, Positives, one_of
from benchmarks.harness.results import Results
from psi_optax._compat import enable_x64

SHOWN = 150  # number of steps whose loss is among the results, at most
MARGIN = 1.1  # factor of constants that were exceeded on a path
ROUNDING = 1e-14  # of a loss, a mean of 1e3 terms of size 1


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment."""

    dataset: Annotated[str, one_of(data.NAMES)] = "digits"  # Data set.
    width: Count = 8  # Hidden units.
    steps: Count = 2000  # Steps.
    rounds: Count = 5  # Descents that may correct the constants.
    points: Count = 6  # Points of a path at which smoothness is measured.
    # Factors of the theorems' rates.
    multiples: Positives = (0.1, 1.0, 3.0, 10.0, 30.0, 100.0)
    # Factors of the initial kernels.
    scales: Positives = (0.1, 1.0, 10.0, 100.0)


def measure(settings: Settings, results: Results) -> None:
    """Measure a part for each descent."""
    runs = 1 + len(settings.multiples) + len(settings.scales)
    results.expect(2 * runs + len(settings.scales))
    with enable_x64(True):
        images = data.load(settings.dataset)
        problem = descent.make_problem(images, settings.width)
        smoothness = Smoothness(problem)
        for name in report.METHODS:
            _measure(_Method(settings, problem, smoothness, name), results)


def _measure(method, results):
    settings, name = method.settings, method.name
    run = partial(method.theorem, 1.0)
    first = results.part(f"{name}, theorem, scale 1", run)
    rates = np.array(first["rates"])
    # On the manifold scales have no effect.
    scales = settings.scales if name == "GD" else ()
    runs = {f"theorem, scale {x:g}": partial(method.theorem, x) for x in scales}
    for x in settings.multiples:
        runs[f"multiple {x:g}"] = partial(method.descend, 1.0, x * rates)
    for x in settings.scales:
        runs[f"rate kept, scale {x:g}"] = partial(method.descend, x, rates)
    for run, descend in runs.items():
        results.part(f"{name}, {run}", descend)


class _Method:
    """Descent on the PSI manifold or off it."""

    def __init__(self, settings, problem, smoothness, name):
        self.settings, self.problem = settings, problem
        self.smoothness, self.name = smoothness, name
        self.path = descent.make_descent(
            problem, name == "PSI-GD", settings.steps
        )

    def theorem(self, scale: float) -> dict[str, Any]:
        """Descend at 1 over constants that hold on the path.

        Constants that are exceeded are enlarged, and descent begins again.
        The `excess` that is left is the largest quotient of a constant on the
        path and of that which its rate was made of.
        """
        start = descent.scaled(self.problem, scale)
        known = self.smoothness.constants(self._seen(start[None]))
        rounds = self.settings.rounds
        while True:
            rounds -= 1
            path = self.path(start, 1 / known)
            found = self.smoothness.constants(self._seen(path["points"]))
            excess = float(np.max(found / known))
            if excess <= 1 or not rounds:
                break
            known = np.maximum(known, MARGIN * found)
        summary = self._summary(path, 1 / known)
        return {**summary, "rates": (1 / known).tolist(), "excess": excess}

    def descend(self, scale: float, rates: np.ndarray) -> dict[str, Any]:
        """Descend at given rates."""
        path = self.path(descent.scaled(self.problem, scale), rates)
        return self._summary(path, rates)

    def _summary(self, path, rates):
        """Return some steps of a path, and counts of all of them."""
        settings, curvature = self.settings, self.smoothness.curvature
        shown, least = _thinned(settings.steps, SHOWN), np.minimum.accumulate
        seen = self._seen(path["points"])
        falls = -np.diff(path["loss"])
        return {
            "step": shown.tolist(),
            "loss": path["loss"][shown].tolist(),
            "direction": least(path["direction"])[shown].tolist(),
            "euclidean": least(path["euclidean"])[shown].tolist(),
            "rises": int(np.sum(falls < -ROUNDING)),
            "broken": int(np.sum(falls < path["promised"][:-1] - ROUNDING)),
            "seen": _thinned(settings.steps, settings.points).tolist(),
            "curvature": [curvature(x, rates) for x in seen],
        }

    def _seen(self, points):
        """Return the points at which the theorem asks for smoothness."""
        indices = _thinned(len(points) - 1, self.settings.points)
        chosen = [jnp.asarray(points[index]) for index in indices]
        if self.name == "GD":
            return chosen
        return [descent.normalized(self.problem, x) for x in chosen]


def _thinned(steps: int, number: int) -> np.ndarray:
    """Return steps at increasing distances, with the first and the last.

    Examples:
        >>> _thinned(1000, 4).tolist()
        [0, 1, 10, 100, 1000]
    """
    later = np.geomspace(1, steps, number) if steps else []
    return np.unique([0, *np.rint(later).astype(int)])


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(
        width=2,
        steps=30,
        rounds=3,
        points=2,
        multiples=(1.0, 30.0),
        scales=(1.0, 10.0),
    ),
    measure=measure,
    report=report.report,
    faults=report.faults,
    figures=report.figures,
    page="experiments/convergence.md",
)
