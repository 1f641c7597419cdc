"""Training of learners at all rates and seeds at once, by average."""

import dataclasses
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import data, training
from benchmarks.experiments.averaging.methods import (
    AVERAGES,
    AXIS,
    LABELS,
    consensus,
    first,
    make,
)
from benchmarks.experiments.averaging.report import faults, figures, report
from benchmarks.experiments.noisy_data import split
from benchmarks.harness.files import InputError
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import (
    Count,
    Counts,
    Positive,
    Positives,
    at_least,
    one_of,
)
from benchmarks.harness.results import Results
from psi_optax.models import linen


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment."""

    learners: Annotated[int, at_least(3)] = 16  # Learners.
    # Examples in a batch, which the learners divide.
    batch_sizes: Counts = (256, 2048)
    # Learning rates, ascending.
    rates: Positives = tuple(2.0**power for power in range(-4, 5))
    seeds: Count = 4  # Seeds.
    dataset: Annotated[str, one_of(data.NAMES)] = "fashion-mnist"  # Data set.
    train: Count = 16384  # Training images.
    validation: Count = 4000  # Validation images.
    pool: Count = 2  # Side of the squares of pixels that become one.
    epochs: Count = 10  # Epochs.
    widths: Counts = (32, 32)  # Hidden units of each layer.
    bn_epsilon: Positive = 1e-5  # Epsilon of batch normalization.


def measure(settings: Settings, results: Results) -> None:
    """Measure a part for each batch size, average and optimizer."""
    for size in settings.batch_sizes:
        if size % settings.learners:
            raise InputError(
                f"--batch-sizes {size}: it has to be a multiple of"
                f" --learners {settings.learners}."
            )
    results.expect(len(settings.batch_sizes) * len(AVERAGES) * len(LABELS))
    runs = Runs(settings)
    for size in settings.batch_sizes:
        for averaging in AVERAGES:
            for optimizer in LABELS:
                part = partial(runs.measure, size, averaging, optimizer)
                results.part(f"{size}/{averaging}/{optimizer}", part)


class Runs:
    """Training of one network.

    Args:
        settings: those of the experiment.
    """

    def __init__(self, settings: Settings):
        sizes = settings.train, settings.validation, settings.pool
        splits = split(settings.dataset, *sizes, 0.0)
        self.settings, self.dataset = settings, splits[0]
        # With momentum 0 the running statistics are those of the last batch.
        self.model = linen.MLP(
            settings.widths,
            self.dataset.num_classes,
            epsilon=settings.bn_epsilon,
            momentum=0.0,
        )
        images = self.dataset.train_images
        self.groups = training.kernel_groups(self.model, images).groups
        self.evaluate = {
            name: training.make_evaluate(self.model, part)
            for name, part in zip(("validation", "test"), splits, strict=True)
        }

    def measure(self, size: int, averaging: str, optimizer: str) -> Any:
        """Return accuracies and distances of learners, by rate and seed."""
        trained, distance = self.train(size, averaging, optimizer)
        found = {name: self._accuracies(x) for name, x in trained.items()}
        return {**found, "distance": _listed(distance)}

    def train(self, size: int, averaging: str, optimizer: str) -> Any:
        """Train, and return what `Runs.compile` describes."""
        settings, images = self.settings, self.dataset.train_images
        sizes = range(settings.seeds), size, settings.epochs
        variables, batches = training.begin(self.model, images, *sizes)
        parts = divide(batches, settings.learners)
        rates = jnp.asarray(settings.rates, jnp.float32)
        train = self.compile(averaging, optimizer)
        return train(variables, parts, rates, 0.0)

    def compile(self, averaging: str, optimizer: str) -> Any:
        """Compile the training, for all seeds, rates and learners.

        Its results have axes for seeds and rates: the variables of the mean of
        the learners and those of one, by name, and the mean over steps of the
        learners' distance, see `consensus`.
        """

        def build(rate, decay, groups):
            del decay
            return make(optimizer, averaging, rate, groups)

        def distance(before, after, *_):
            del before
            return consensus(after)[1]

        one = training.make_training(
            self.model, build, self.groups, look=distance
        )

        def learner(*arguments):
            variables, distances = one(*arguments)
            mean, _ = consensus(variables["params"])
            kept = first(variables)
            means = {**kept, "params": mean}
            return {"mean": means, "one": kept}, distances.mean()

        axes = None, None, None, 0, None, None
        train = jax.vmap(learner, axes, None, axis_name=AXIS)
        # The rates share batches, so that the first layer is one product.
        train = jax.vmap(train, (None, None, None, None, 0, None))
        return training.for_seeds(train, self.dataset)

    def _accuracies(self, variables: Any) -> Any:
        """Return accuracies with the statistics of all training images."""
        shape = self.settings.seeds, len(self.settings.rates)
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), variables)
        flat = _recalibrate(self.model, flat, self.dataset.train_images)
        return {
            name: _listed(evaluate(flat)[0].reshape(shape))
            for name, evaluate in self.evaluate.items()
        }


def divide(batches: np.ndarray, learners: int) -> np.ndarray:
    """Divide batches `(seeds, steps, size)` among learners, the second axis.

    Examples:
        >>> divide(np.arange(8).reshape(1, 2, 4), 2).tolist()
        [[[[0, 1], [4, 5]], [[2, 3], [6, 7]]]]
    """
    parts = batches.reshape(*batches.shape[:2], learners, -1)
    return parts.transpose(0, 2, 1, 3)


@partial(jax.jit, static_argnums=0)
def _recalibrate(model: linen.MLP, variables: Any, images: Any) -> Any:
    """Replace statistics by those of these images, for each of some runs."""

    def one(variables):
        _, new = model.apply(variables, images, True, mutable=["batch_stats"])
        return {**variables, **new}

    return jax.lax.map(one, variables, batch_size=8)


def _listed(values: Any) -> Any:
    """Return an array of seeds and rates as lists, by rate first.

    JSON has no NaN, which a run that diverged has: it becomes None.
    """
    rows = np.asarray(values, float).T.tolist()
    return [[x if np.isfinite(x) else None for x in row] for row in rows]


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(
        learners=4,
        batch_sizes=(100,),
        rates=(0.125, 0.5),
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
    page="experiments/averaging.md",
    figures=figures,
    faults=faults,
)
