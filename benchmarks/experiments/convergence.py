"""Does descent converge as the PSI paper's theorems 2 and 4 promise?

    python -m benchmarks.experiments.convergence
    python -m benchmarks.experiments.convergence --docs

Full-batch descent in double precision on a batch-normalized network, on the
PSI manifold (PSI-GD, theorem 2) and off it (GD, theorem 4). The theorems ask
for constants of smoothness, which are measured where descent passes. Then with
multiples of their rates, and with the same rates from other initial scales.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import data
from benchmarks.experiments import convergence_report
from benchmarks.experiments.command import Experiment, main as run
from benchmarks.experiments.convergence_problem import (
    Path,
    make_descent,
    make_problem,
)
from benchmarks.experiments.convergence_smoothness import (
    make_constants,
    make_curvature,
    normalized,
)
from benchmarks.experiments.results import Results

__all__ = ["EXPERIMENT", "Settings", "main", "measure"]

SHOWN = 150
"""Of how many steps there is a loss in the results."""

MARGIN = 1.1
"""By how much constants are enlarged when a path exceeds them."""


class Settings(NamedTuple):
    """What the numbers depend on.

    Attributes:
        dataset: name of the data set.
        width: number of hidden units.
        steps: how many steps descent makes.
        rounds: how often the constants may be corrected.
        points: at how many points of a path smoothness is measured.
        multiples: of the theorems' rates.
        scales: factors of the initial kernels.
    """

    dataset: str = "digits"
    width: int = 8
    steps: int = 2000
    rounds: int = 5
    points: int = 6
    multiples: tuple[float, ...] = (0.1, 1.0, 3.0, 10.0, 30.0, 100.0)
    scales: tuple[float, ...] = (0.1, 1.0, 10.0, 100.0)


SMOKE = Settings(
    width=2,
    steps=30,
    rounds=3,
    points=2,
    multiples=(1.0, 30.0),
    scales=(1.0, 10.0),
)


class _Tools:
    """A problem, and what measures its smoothness."""

    def __init__(self, settings: Settings):
        dataset = data.load(settings.dataset)
        self.problem = make_problem(dataset, settings.width)
        self.constants = make_constants(self.problem)
        self.curvature = make_curvature(self.problem)


class _Descent:
    """One of the two methods."""

    def __init__(self, settings: Settings, tools: _Tools, psi: bool):
        self.settings, self.psi = settings, psi
        self.problem = tools.problem
        self.constants = tools.constants
        self.curvature = tools.curvature
        self.descend = make_descent(self.problem, psi, settings.steps)

    def start(self, scale: float) -> jax.Array:
        """The initial parameters, with kernels multiplied by the scale."""
        x = self.problem.start
        return jnp.where(self.problem.ids < 0, x, scale * x)

    def path(self, scale: float, rates: np.ndarray) -> Path:
        """Descend."""
        found = self.descend(self.start(scale), jnp.asarray(rates))
        return jax.tree.map(np.asarray, found)

    def looked_at(self, points: Any) -> list[jax.Array]:
        """Some of the points, where the theorem wants the smoothness."""
        shown = _thinned(len(points) - 1, self.settings.points)
        chosen = [jnp.asarray(points[index]) for index in shown]
        if self.psi:
            return [normalized(self.problem, x) for x in chosen]
        return chosen

    def theorem(self, scale: float) -> dict[str, Any]:
        """Find rates that are 1 over the constants of the path they lead on.

        Returns:
            The run, with `rates` and with `excess`: the largest constant of
            the path, of that which the rate was made of.
        """
        known = self.constants(self.looked_at(self.start(scale)[None]))
        for turn in itertools.count(1):
            rates = 1 / known
            path = self.path(scale, rates)
            found = self.constants(self.looked_at(path.points))
            excess = float(np.max(found / known))
            if excess <= 1 or turn >= self.settings.rounds:
                return {
                    **self.summary(path, rates),
                    "rates": rates.tolist(),
                    "excess": excess,
                }
            known = np.maximum(known, MARGIN * found)
        raise AssertionError("the count has no end")

    def summary(self, path: Path, rates: np.ndarray) -> dict[str, Any]:
        """What is kept of a run: some of its steps, and counts of all."""
        falls = path.loss[:-1] - path.loss[1:]
        # What rounding may add: a loss is a mean of 1e3 terms of size 1.
        rounding = 1e-14
        steps = _thinned(self.settings.steps, SHOWN)
        series = {
            "loss": path.loss,
            "direction": np.minimum.accumulate(path.direction),
            "euclidean": np.minimum.accumulate(path.euclidean),
        }
        seen = self.looked_at(path.points)
        return {
            "step": steps.tolist(),
            **{name: values[steps].tolist() for name, values in series.items()},
            "rises": int(np.sum(falls < -rounding)),
            "broken": int(np.sum(falls < path.promised[:-1] - rounding)),
            "seen": _thinned(
                self.settings.steps, self.settings.points
            ).tolist(),
            "curvature": [self.curvature(x, rates) for x in seen],
        }

    def again(self, scale: float, rates: np.ndarray) -> dict[str, Any]:
        """A run at given rates."""
        return self.summary(self.path(scale, rates), rates)


def _thinned(steps: int, number: int) -> np.ndarray:
    """Some of the steps, the first and the last and ever fewer between them.

    Examples:
        >>> _thinned(1000, 4).tolist()
        [0, 1, 10, 100, 1000]
    """
    later = np.geomspace(1, steps, number) if steps else []
    return np.unique([0, *np.rint(later).astype(int)])


def measure(settings: Settings, results: Results) -> None:
    """Descend at the theorems' rates, at multiples, and from other scales.

    Args:
        settings: the experiment.
        results: gets a part for each run, see `convergence_report`.
    """
    with jax.enable_x64(True):
        tools = _Tools(settings)
        for name, psi in (("PSI-GD", True), ("GD", False)):
            _measure(name, _Descent(settings, tools, psi), results)


def _measure(name: str, method: _Descent, results: Results) -> None:
    settings = method.settings

    def part(what: str, function: Callable, *arguments: Any) -> Any:
        return results.part(
            f"{name}, {what}", functools.partial(function, *arguments)
        )

    first = part("theorem, scale 1", method.theorem, 1.0)
    rates = np.array(first["rates"])
    if not method.psi:  # on the manifold there is no scale
        for scale in settings.scales:
            part(f"theorem, scale {scale:g}", method.theorem, scale)
    for multiple in settings.multiples:
        part(f"multiple {multiple:g}", method.again, 1.0, multiple * rates)
    for scale in settings.scales:
        part(f"rate kept, scale {scale:g}", method.again, scale, rates)


EXPERIMENT = Experiment(
    name="convergence",
    about="Full-batch descent, beside the bounds of theorems 2 and 4.",
    settings=Settings(),
    smoke=SMOKE,
    measure=measure,
    table=convergence_report.table,
    figure=convergence_report.figure,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment from the command line.

    Args:
        arguments: the command line; that of the process by default.
    """
    run(EXPERIMENT, arguments)


if __name__ == "__main__":
    main()
