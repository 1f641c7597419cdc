"""Surfaces and paths of dense networks before and after rescaling."""

import dataclasses
import itertools
from functools import partial
from typing import Annotated, Any

import jax
import numpy as np
from flax import linen as nn

from benchmarks import data, training
from benchmarks.experiments.dense import (
    EXACT,
    NETWORKS,
    DenseNetwork,
    columns,
    listed,
    rescale,
    training_loss,
)
from benchmarks.experiments.surfaces.paths import path
from benchmarks.experiments.surfaces.planes import (
    COORDINATES,
    draw,
    identity,
    surface,
)
from benchmarks.experiments.surfaces.report import (
    STARTS,
    faults,
    figures,
    report,
)
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import (
    Count,
    Counts,
    Positive,
    at_least,
    one_of,
)
from benchmarks.harness.results import Results
from benchmarks.optimizers import OPTIMIZERS


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment."""

    dataset: Annotated[str, one_of(data.NAMES)] = "digits"  # Data set.
    # Hidden units of each layer.
    widths: Counts = (32, 32)
    rate: Positive = 0.05  # First learning rate of SGD with momentum 0.9.
    epochs: Count = 20  # Epochs of each training.
    batch_size: Count = 64  # Examples in a batch of training.
    seeds: Annotated[int, at_least(2)] = 4  # Seeds; surfaces are of the first.
    extent: Positive = 1.0  # Surfaces extend from -extent to extent.
    side: Annotated[int, at_least(3)] = 17  # Points along a side of a surface.
    points: Annotated[int, at_least(3)] = 21  # Points of a path.
    power: Count = 3  # Filters are rescaled by 2^-power to 2^power.


def measure(settings: Settings, results: Results) -> None:
    """Measure surfaces and paths of each network."""
    results.expect(3 * len(NETWORKS))
    dataset = data.load(settings.dataset)
    for name, normalized in NETWORKS.items():
        runs = Runs(settings, dataset, normalized)
        results.part(f"{name}, surfaces", runs.surfaces)
        for start in STARTS:
            run = partial(runs.paths, start)
            results.part(f"{name}, paths, {start}", run)


class Runs:
    """Solutions of one network, and the loss around and between them."""

    def __init__(
        self, settings: Settings, dataset: data.Dataset, normalized: bool
    ):
        self.settings, self.normalized = settings, normalized
        self.dataset = dataset
        sizes = settings.widths, dataset.num_classes
        self.model = DenseNetwork(*sizes, normalized, nn.relu, **EXACT)
        self.loss = training_loss(self.model)
        self.data = dataset.train_images, dataset.train_labels
        self._solutions = {}

    def solutions(self, start: str) -> list[Any]:
        """Train from one start or several, with other batches each."""
        if start not in self._solutions:
            settings, images = self.settings, self.data[0]
            seeds = range(settings.seeds)
            sizes = settings.batch_size, settings.epochs
            variables, batches = training.begin(
                self.model, images, seeds, *sizes
            )
            if start == "same start":
                variables = jax.tree.map(
                    lambda x: np.repeat(x[:1], len(seeds), 0), variables
                )
            sgd = OPTIMIZERS["sgd"].make
            train = training.make_training(
                self.model, lambda rate, **_: sgd(rate), None
            )
            trained, _ = training.for_seeds(train, self.dataset)(
                variables, batches, settings.rate, 0.0
            )
            params = trained["params"]
            self._solutions[start] = [
                jax.tree.map(lambda x, i=i: x[i], params) for i in seeds
            ]
        return self._solutions[start]

    def surfaces(self) -> dict[str, Any]:
        """Measure the planes of one solution and of its rescaled copy."""
        settings, trained = self.settings, self.solutions("other starts")[0]
        extent, groups = settings.extent, columns(trained)
        steps = np.linspace(-extent, extent, settings.side, dtype=np.float32)
        other = rescale(trained, self.normalized, settings.power)
        pairs = _draw_pairs(trained, other, groups)
        found = {}
        for index, name in enumerate(COORDINATES):
            known = groups if name == "angles" else None
            both = []
            for params, pair in zip((trained, other), pairs, strict=True):
                chosen = [direction[index] for direction in pair]
                options = self.data, chosen, steps, known
                both.append(surface(self.loss, params, *options))
            found[name] = _compare(*both)
        first, *_ = pairs[0]
        shift = identity(self.loss, trained, self.data, first, steps, groups)
        return {
            "loss": listed(self.loss(trained, *self.data)),
            "surfaces": found,
            "identity": listed(shift, 2),
        }

    def paths(self, start: str) -> dict[str, Any]:
        """Measure the paths between each two successive solutions."""
        ends, settings = self.solutions(start), self.settings
        pairs = list(itertools.pairwise(ends))
        found: dict[str, Any] = {}
        for name, groups in (("line", None), ("geodesic", columns(ends[0]))):
            kinds: dict[str, list] = {"trained": [], "rescaled": []}
            for first, last in pairs:
                other = rescale(last, self.normalized, settings.power)
                for kind, end in zip(kinds, (last, other), strict=True):
                    options = self.data, settings.points, groups
                    losses = path(self.loss, (first, end), *options)
                    kinds[kind].append(listed(losses, 7))
            found[name] = kinds
        return found


def _draw_pairs(trained, other, groups):
    """Draw two directions from a solution, and the same from its copy."""
    keys = jax.random.split(jax.random.key(0))
    first, second = (
        [draw(params, groups, key) for key in keys]
        for params in (trained, other)
    )
    # A direction of weights is one vector: it does not depend on the copy.
    second = [
        new._replace(weights=old.weights)
        for new, old in zip(second, first, strict=True)
    ]
    return first, second


def _compare(trained, rescaled):
    """Return both surfaces, their largest difference, and the range."""
    return {
        "trained": listed(trained),
        "rescaled": listed(rescaled),
        "difference": listed(np.abs(trained - rescaled).max(), 3),
        "range": listed(np.ptp(trained), 3),
    }


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(
        widths=(8,), epochs=1, seeds=2, side=3, points=3, batch_size=128
    ),
    measure=measure,
    report=report,
    faults=faults,
    figures=figures,
    page="experiments/surfaces.md",
)
