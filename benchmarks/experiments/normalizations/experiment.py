"""Training at all rates and seeds at once, by normalization and scale."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

import psi_optax
from benchmarks import data, training
from benchmarks.experiments.noisy_data import split
from benchmarks.experiments.normalizations.equality import differences
from benchmarks.experiments.normalizations.methods import (
    LABELS,
    NORMALIZATIONS,
)
from benchmarks.experiments.normalizations.network import Network
from benchmarks.experiments.normalizations.report import (
    EQUALITY,
    faults,
    figures,
    report,
)
from benchmarks.experiments.rescaling.experiment import scale_filters
from benchmarks.harness.files import InputError
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import (
    Count,
    Counts,
    Positive,
    Positives,
    Share,
    one_of,
    some,
)
from benchmarks.harness.results import Results


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment."""

    # Normalizations.
    normalizations: Annotated[tuple[str, ...], some(one_of(NORMALIZATIONS))] = (
        *NORMALIZATIONS,
    )
    # Learning rates, ascending.
    rates: Positives = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    # Factors of the initial kernels of hidden layers; 1 has to be one of them.
    scales: Positives = (0.125, 0.5, 1.0, 2.0, 8.0)
    seeds: Count = 4  # Seeds.
    dataset: Annotated[str, one_of(data.NAMES)] = "fashion-mnist"  # Data set.
    train: Count = 4000  # Training images.
    validation: Count = 2000  # Validation images.
    pool: Count = 2  # Side of the squares of pixels that become one.
    epochs: Count = 10  # Epochs.
    batch_size: Count = 128  # Examples in a batch.
    widths: Counts = (32, 32)  # Hidden units of each layer.
    bn_epsilon: Positive = 1e-20  # Epsilon of batch normalization.
    bn_momentum: Share = 0.9  # Momentum of its running statistics.


def measure(settings: Settings, results: Results) -> None:
    """Measure a part for each normalization, optimizer and scale."""
    if 1.0 not in settings.scales:
        raise InputError("--scales lacks 1, where rates are tuned: add it.")
    sizes = settings.train, settings.validation, settings.pool
    splits = split(settings.dataset, *sizes, 0.0)
    count = len(settings.normalizations) * len(LABELS) * len(settings.scales)
    results.expect(1 + count)
    results.part(EQUALITY, partial(differences, splits[0]))
    for name in settings.normalizations:
        runs = Runs(settings, name, splits)
        for optimizer in LABELS:
            accuracies = runs.compile(optimizer)
            for scale in settings.scales:
                part = partial(accuracies, scale)
                results.part(f"{name}/{optimizer}/{scale:g}", part)


class Runs:
    """Training of one network.

    Args:
        settings: those of the experiment.
        name: of a normalization.
        splits: the training part, with the validation part and the test part.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        splits: tuple[data.Dataset, data.Dataset],
    ):
        self.settings, self.dataset = settings, splits[0]
        self.normalization = normalization = NORMALIZATIONS[name]
        self.model = Network(
            settings.widths,
            self.dataset.num_classes,
            normalization.function,
            normalization.batch_norm,
            normalization.scaled,
            epsilon=settings.bn_epsilon,
            momentum=settings.bn_momentum,
        )
        images, seeds = self.dataset.train_images, range(settings.seeds)
        sizes = settings.batch_size, settings.epochs
        self.start = training.begin(self.model, images, seeds, *sizes)
        self.filters = _filters(self.start[0]["params"])
        self.evaluate = {
            name: training.make_evaluate(self.model, part)
            for name, part in zip(("validation", "test"), splits, strict=True)
        }

    def groups(self) -> Any:
        """Return the filters, or what is found to be scale-invariant."""
        if self.normalization.stated:
            return self.filters
        images = self.dataset.train_images
        return training.kernel_groups(self.model, images)

    def compile(self, optimizer: str) -> Callable[[float], dict[str, Any]]:
        """Return a function of scale: accuracies by part, rate and seed."""
        make = self.normalization.optimizers[optimizer]

        def build(rate, decay, groups):
            del decay
            return make(rate, groups)

        train = training.make_training(self.model, build, self.groups())
        # The rates share batches, so that the first layer is one product.
        train = jax.vmap(train, (None, None, None, None, 0, None))
        train = training.for_seeds(train, self.dataset)
        rates = jnp.asarray(self.settings.rates, jnp.float32)

        def accuracies(scale: float) -> dict[str, Any]:
            variables, batches = self.start
            variables = scale_filters(variables, self.filters, scale)
            trained, _ = train(variables, batches, rates, 0.0)
            return self._accuracies(trained)

        return accuracies

    def _accuracies(self, trained: Any) -> dict[str, Any]:
        shape = self.settings.seeds, len(self.settings.rates)
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), trained)
        return {
            name: np.asarray(evaluate(flat)[0], float).reshape(shape).T.tolist()
            for name, evaluate in self.evaluate.items()
        }


def _filters(params: Any) -> Any:
    """State the filters of the hidden layers of params of several seeds."""
    one = jax.tree.map(lambda leaf: leaf[0], params)
    return psi_optax.output_channels(one, where="hidden_.*/kernel")


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(
        normalizations=("none", "unit", "projected"),
        rates=(0.03, 0.3),
        scales=(0.125, 1.0),
        seeds=2,
        dataset="digits",
        train=500,
        validation=200,
        pool=1,
        epochs=2,
        widths=(16,),
    ),
    measure=measure,
    report=report,
    page="experiments/normalizations.md",
    figures=figures,
    faults=faults,
)
