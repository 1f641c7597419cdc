"""Settings and runs of the accuracy experiment."""

import dataclasses
import itertools
from collections.abc import Callable
from functools import cache, partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from benchmarks import data, training
from benchmarks.data import Dataset
from benchmarks.experiments.accuracy.report import BASELINE, figures, report
from benchmarks.experiments.noisy_data import split
from benchmarks.experiments.tuning import TUNING_SEED, point, tune
from benchmarks.harness.files import InputError
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import (
    Count,
    Counts,
    Share,
    at_least,
    one_of,
    option,
    some,
)
from benchmarks.harness.results import Results
from benchmarks.optimizers import TUNED
from benchmarks.training import Build, kernel_groups, make_step
from psi_optax.models import linen

GRIDS = TUNED | {
    name: dataclasses.replace(TUNED[name], decays=decays)
    for decays, names in {
        (0.003, 0.03, 0.3): ("sgd_decay", "rotational", "psi_sgd_decay"),
        (0.3, 3.0, 30.0): ("adamw", "adamp", "psi_adam_decay"),
    }.items()
    for name in names
}
"""The optimizers, with decays around the best for these numbers of steps."""


def make_stepwise(model: nn.Module, build: Build, dataset: Dataset) -> Callable:
    """Compile the steps of `benchmarks.training.make_train`.

    On a CPU convolutions are several times slower within a compiled loop, and
    where each seed has kernels of its own.
    """
    images = jnp.asarray(dataset.train_images)
    labels = jnp.asarray(dataset.train_labels)
    begin, advance = _compile(model, build, images.shape[1:])

    def train_one(variables, batches, *point):
        carry = begin(variables, batches, *point)
        for index in range(len(batches)):
            carry = advance(carry, index, images, labels, batches, *point)
        return carry[0]

    def train(variables, batches, *point):
        trained = []
        for seed, order in enumerate(jnp.asarray(batches)):
            start = jax.tree.map(lambda leaf, seed=seed: leaf[seed], variables)
            trained.append(train_one(start, order, *point))
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trained)

    return train


@cache
def _compile(model: Any, build: Build, shape: tuple[int, ...]) -> tuple:
    """Compile the beginning and a step, once for all data of a shape."""
    groups = kernel_groups(
        model, jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    )

    def optimizer(batches, rate, decay):
        schedule = optax.cosine_decay_schedule(rate, len(batches))
        return build(rate=schedule, decay=decay, groups=groups)

    def begin(variables, *point):
        return variables, optimizer(*point).init(variables["params"])

    def advance(carry, index, images, labels, batches, *point):
        step = make_step(model, optimizer(batches, *point), images, labels)
        return step(carry, batches[index])[0]

    return jax.jit(begin), jax.jit(advance, donate_argnums=0)


MODELS: dict[str, tuple[Callable, Callable]] = {
    "mlp": (linen.MLP, training.make_train),
    "cnn": (linen.CNN, make_stepwise),
}
"""The networks, and how each is trained."""


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(f"{text}: it has to be from 0 to 1.")
    return value


Shares = Annotated[tuple[float, ...], some(option(_share, "FLOAT"))]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment."""

    # Data sets.
    datasets: Annotated[tuple[str, ...], some(one_of(data.NAMES))] = (
        *("mnist", "fashion-mnist"),
    )
    # Networks with BatchNorm.
    networks: Annotated[tuple[str, ...], some(one_of(MODELS))] = ("mlp", "cnn")
    noises: Shares = (0.0, 0.3)  # Shares of wrong labels.
    # Optimizers; sgd_decay is the baseline.
    methods: Annotated[tuple[str, ...], some(one_of(GRIDS))] = (
        *("sgd", "sgd_decay", "adamw", "adamp", "sgd_g"),
        *("weight_rescaling", "rotational", "psi_sgd", "psi_sgdm", "psi_adam"),
        *("psi_sgd_decay", "psi_adam_decay"),
    )
    train: Count = 5000  # Training images.
    validation: Count = 5000  # Validation images.
    pool: Count = 2  # Side of the squares of pixels that become one.
    seeds: Annotated[int, at_least(2)] = 10  # Seeds of the final runs.
    batch_size: Count = 64  # Examples in a batch.
    mlp: Counts = (64, 64)  # Hidden units of each layer.
    mlp_epochs: Count = 15  # Epochs.
    mlp_tuning_seeds: Count = 2  # Seeds in tuning; so many train at once.
    cnn: Counts = (8, 16, 32)  # Channels of each layer.
    cnn_epochs: Count = 4  # Epochs.
    cnn_tuning_seeds: Count = 1  # Seeds in tuning; so many train at once.
    bn_momentum: Share = 0.9  # Momentum of the running statistics.


def measure(settings: Settings, results: Results) -> None:
    """Add a part for each data set, network, noise and method."""
    if BASELINE not in settings.methods:
        raise InputError(f"--methods: {BASELINE} has to be one of them.")
    kinds = settings.datasets, settings.networks, settings.noises
    cases = list(itertools.product(*kinds))
    results.expect(len(cases) * len(settings.methods))
    for case in cases:
        runs = cache(partial(_Runs, settings, *case))
        for method in settings.methods:
            results.part(
                "{}/{}/{:g}/{}".format(*case, method),
                lambda runs=runs, method=method: runs().measure(method),
            )


class _Runs:
    """Training of a network on a data set with wrong labels."""

    def __init__(self, settings, dataset, network, noise):
        sizes = settings.train, settings.validation, settings.pool
        tuning, final = split(dataset, *sizes, noise)
        self.settings, self.dataset = settings, final
        self.epochs = getattr(settings, f"{network}_epochs")
        self.count = getattr(settings, f"{network}_tuning_seeds")
        model, self.compile = MODELS[network]
        widths = getattr(settings, network), final.num_classes
        self.model = model(*widths, momentum=settings.bn_momentum)
        self.validate = training.make_evaluate(self.model, tuning)
        self.test = training.make_evaluate(self.model, final)

    def measure(self, method: str) -> dict[str, Any]:
        """Tune a method, then train with it from other seeds."""
        train = self.compile(self.model, GRIDS[method].build, self.dataset)
        run = partial(self.run, train)
        tuned = tune(GRIDS[method], partial(run, self.validate, TUNING_SEED))
        firsts = range(0, self.settings.seeds, self.count)
        found = [run(self.test, first, *point(tuned))[0] for first in firsts]
        accuracies = np.concatenate(found)[: self.settings.seeds]
        return {**tuned, "accuracy": accuracies.tolist()}

    def run(self, train, evaluate, first, *point):
        """Train from as many seeds as in tuning; evaluate each."""
        images = self.dataset.train_images
        seeds = range(first, first + self.count)
        sizes = self.settings.batch_size, self.epochs
        start = training.begin(self.model, images, seeds, *sizes)
        return evaluate(train(*start, *point))


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(
        datasets=("digits",),
        networks=("cnn",),
        noises=(0.3,),
        methods=("sgd_decay", "psi_sgd"),
        train=300,
        seeds=2,
        cnn=(4,),
        cnn_epochs=1,
    ),
    measure=measure,
    report=report,
    page="experiments/accuracy.md",
    figures=figures,
)
