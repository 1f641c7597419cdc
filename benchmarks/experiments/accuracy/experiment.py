"""Settings and runs of the accuracy experiment."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import numpy as np

from benchmarks import data, training
from benchmarks.experiments.accuracy.report import BASELINE, figures, report
from benchmarks.experiments.accuracy.stepwise import make_stepwise
from benchmarks.experiments.noisy_data import split
from benchmarks.experiments.tuning import TUNING_SEED, point, tune
from benchmarks.harness.files import InputError
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Count, at_least, one_of, option, some
from benchmarks.harness.results import Results
from benchmarks.optimizers import TUNED
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
Counts = Annotated[tuple[int, ...], some(at_least(1))]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment.

    Attributes:
        datasets: Data sets.
        networks: Networks with BatchNorm.
        noises: Shares of wrong labels.
        methods: Optimizers; sgd_decay is the baseline.
        train: Training images.
        validation: Validation images.
        pool: Side of the squares of pixels that become one.
        seeds: Seeds of the final runs.
        batch_size: Examples in a batch.
        mlp: Hidden units of each layer.
        mlp_epochs: Epochs.
        mlp_tuning_seeds: Seeds in tuning; so many train at once.
        cnn: Channels of each layer.
        cnn_epochs: Epochs.
        cnn_tuning_seeds: Seeds in tuning; so many train at once.
        bn_momentum: Momentum of the running statistics.
    """

    datasets: Annotated[tuple[str, ...], some(one_of(data.NAMES))] = (
        *("mnist", "fashion-mnist"),
    )
    networks: Annotated[tuple[str, ...], some(one_of(MODELS))] = ("mlp", "cnn")
    noises: Shares = (0.0, 0.3)
    methods: Annotated[tuple[str, ...], some(one_of(GRIDS))] = (
        *("sgd", "sgd_decay", "adamw", "adamp", "sgd_g"),
        *("weight_rescaling", "rotational", "psi_sgd", "psi_sgdm", "psi_adam"),
        *("psi_sgd_decay", "psi_adam_decay"),
    )
    train: Count = 5000
    validation: Count = 5000
    pool: Count = 2
    seeds: Annotated[int, at_least(2)] = 10
    batch_size: Count = 64
    mlp: Counts = (64, 64)
    mlp_epochs: Count = 15
    mlp_tuning_seeds: Count = 2
    cnn: Counts = (8, 16, 32)
    cnn_epochs: Count = 4
    cnn_tuning_seeds: Count = 1
    bn_momentum: float = 0.9


def measure(settings: Settings, results: Results) -> None:
    """Add a part for each data set, network, noise and method."""
    if BASELINE not in settings.methods:
        raise InputError(f"--methods: {BASELINE} has to be one of them.")
    kinds = settings.datasets, settings.networks, settings.noises
    cases = list(itertools.product(*kinds))
    results.expect(len(cases) * len(settings.methods))
    for case in cases:
        runs = functools.cache(partial(_Runs, settings, *case))
        for method in settings.methods:
            results.part(
                "{}/{}/{:g}/{}".format(*case, method),
                lambda runs=runs, method=method: runs().measure(method),
            )


class _Runs:
    """Training of a network on a data set with wrong labels."""

    def __init__(self, settings, dataset, network, noise):
        sizes = settings.train, settings.validation, settings.pool
        splits, self.settings = split(dataset, *sizes, noise), settings
        self.epochs = getattr(settings, f"{network}_epochs")
        self.count = getattr(settings, f"{network}_tuning_seeds")
        self.dataset = splits.final
        model, self.compile = MODELS[network]
        widths = getattr(settings, network), self.dataset.num_classes
        self.model = model(*widths, momentum=settings.bn_momentum)
        self.validate = training.make_evaluate(self.model, splits.tuning)
        self.test = training.make_evaluate(self.model, splits.final)

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
        images, seeds = (
            self.dataset.train_images,
            range(first, first + self.count),
        )
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
