"""Training at all rates and decays at once, by method, scale and seed."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import data, training
from benchmarks.experiments.noisy_data import split
from benchmarks.experiments.rescaling.experiment import scale_filters
from benchmarks.experiments.sensitivity.report import figures, points, report
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import (
    Count,
    Positive,
    Positives,
    Share,
    one_of,
    some,
)
from benchmarks.harness.results import Results
from benchmarks.optimizers import TUNED
from psi_optax.models import linen


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment."""

    # Optimizers.
    optimizers: Annotated[tuple[str, ...], some(one_of(TUNED))] = (
        *("sgd_decay", "adamw", "adamp"),
        *("rotational", "psi_sgd_decay", "psi_adam_decay"),
    )
    # First learning rate; around Adam a decade lower.
    lowest_rate: Positive = 1e-3
    # First weight decay; around Adam two decades higher.
    lowest_decay: Positive = 1e-4
    rates: Count = 9  # Learning rates, half a decade apart.
    decays: Count = 5  # Weight decays, a decade apart.
    # Factors of the initial filters.
    scales: Positives = (0.01, 0.1, 1.0, 10.0, 100.0)
    seeds: Count = 3  # Seeds.
    dataset: Annotated[str, one_of(data.NAMES)] = "fashion-mnist"  # Data set.
    train: Count = 2000  # Training images.
    pool: Count = 2  # Side of the squares of pixels that become one.
    epochs: Count = 10  # Epochs.
    batch_size: Count = 64  # Examples in a batch.
    widths: tuple[Count, ...] = (64, 64)  # Hidden units of each layer.
    bn_momentum: Share = 0.9  # Momentum of the running statistics.


def measure(settings: Settings, results: Results) -> None:
    """Measure a part for each optimizer, scale and seed."""
    starts = list(itertools.product(settings.scales, range(settings.seeds)))
    results.expect(len(settings.optimizers) * len(starts))
    runs = Runs(settings)
    for name in settings.optimizers:
        accuracies = runs.compile(name)
        for scale, seed in starts:
            part = functools.partial(accuracies, scale, seed)
            results.part(f"{name}/{scale:g}/{seed}", part)


class Runs:
    """Training of one network, on one data set."""

    def __init__(self, settings: Settings):
        name, sizes = settings.dataset, (settings.train, 0, settings.pool)
        self.settings, (_, self.dataset) = settings, split(name, *sizes, 0.0)
        sizes = settings.widths, self.dataset.num_classes
        self.model = linen.MLP(*sizes, momentum=settings.bn_momentum)
        images = self.dataset.train_images
        self.groups = training.kernel_groups(self.model, images)
        self.evaluate = training.make_evaluate(self.model, self.dataset)

    def compile(self, name: str) -> Callable:
        """Return a function of scale and seed: accuracies, rate by decay."""
        images, labels = self.dataset.train_images, self.dataset.train_labels
        sizes = self.settings.batch_size, self.settings.epochs
        grid = points(dataclasses.asdict(self.settings), name)
        rates, decays = np.meshgrid(*grid, indexing="ij")
        pairs = [jnp.asarray(x.ravel(), jnp.float32) for x in (rates, decays)]
        build = TUNED[name].build
        train = training.make_training(self.model, build, self.groups)
        # All points share the batches, so that the first layer is one product.
        train = jax.jit(jax.vmap(train, (None, None, None, None, 0, 0)))

        def accuracies(scale, seed):
            seeds = range(seed, seed + 1)
            start = training.begin(self.model, images, seeds, *sizes)
            variables, batches = jax.tree.map(lambda leaf: leaf[0], start)
            variables = scale_filters(variables, self.groups.groups, scale)
            trained, _ = train(images, labels, variables, batches, *pairs)
            accuracy, _ = self.evaluate(trained)
            return np.asarray(accuracy, float).reshape(rates.shape).tolist()

        return accuracies


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(
        optimizers=("sgd_decay", "psi_sgd_decay"),
        lowest_rate=1e-2,
        lowest_decay=1e-2,
        rates=4,
        decays=2,
        scales=(0.1, 1.0),
        seeds=2,
        dataset="digits",
        train=500,
        pool=1,
        epochs=2,
        widths=(16,),
    ),
    measure=measure,
    report=report,
    figures=figures,
    page="experiments/sensitivity.md",
)
