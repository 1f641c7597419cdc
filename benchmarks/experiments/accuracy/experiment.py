"""Settings and runs of the accuracy experiment."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np

from benchmarks import data, training
from benchmarks.experiments.accuracy.noisy_data import split
from benchmarks.experiments.accuracy.report import BASELINE, figures, report
from benchmarks.experiments.accuracy.runs import MODELS, compile_training
from benchmarks.experiments.tuning import tune
from benchmarks.harness.files import InputError
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Count, at_least, one_of, option, some
from benchmarks.harness.results import Results
from benchmarks.optimizers import TUNED

__all__ = ["GRIDS", "MEASUREMENT", "Settings", "measure"]

TUNING_SEED = 1000  # far from the seeds of the final runs, which start at 0

# Decays around the best ones for these numbers of steps.
_SGD_DECAYS, _ADAM_DECAYS = (0.003, 0.03, 0.3), (0.3, 3.0, 30.0)

GRIDS = TUNED | {
    name: dataclasses.replace(TUNED[name], decays=decays)
    for decays, names in {
        _SGD_DECAYS: ("sgd_decay", "rotational", "psi_sgd_decay"),
        _ADAM_DECAYS: ("adamw", "adamp", "psi_adam_decay"),
    }.items()
    for name in names
}
"""The optimizers, with the grids of this experiment."""


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(f"{text}: it has to be from 0 to 1.")
    return value


Counts = Annotated[tuple[int, ...], some(at_least(1))]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment.

    Attributes:
        datasets: Names of data sets.
        networks: Networks with BatchNorm.
        noises: Shares of wrong labels.
        methods: Optimizers. One is sgd_decay, which the others compare with.
        train: Number of training images.
        validation: Number of validation images.
        pool: Number of pixels that become one, in each direction.
        seeds: Number of seeds of the final runs.
        batch_size: Number of examples in a batch.
        mlp: Numbers of hidden units.
        mlp_epochs: Number of epochs.
        mlp_tuning_seeds: Number of seeds in tuning; so many train at once.
        cnn: Numbers of channels.
        cnn_epochs: Number of epochs.
        cnn_tuning_seeds: Number of seeds in tuning; so many train at once.
        bn_momentum: Decay rate of the running statistics.
    """

    datasets: Annotated[tuple[str, ...], some(one_of(data.NAMES))] = (
        "mnist",
        "fashion-mnist",
    )
    networks: Annotated[tuple[str, ...], some(one_of(MODELS))] = ("mlp", "cnn")
    noises: Annotated[
        tuple[float, ...], some(option(_share, "FLOAT"))
    ] = (0.0, 0.3)  # fmt: skip
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
    cases = list(
        itertools.product(settings.datasets, settings.networks, settings.noises)
    )
    results.expect(len(cases) * len(settings.methods))
    for dataset, network, noise in cases:
        make = functools.cache(
            functools.partial(_make_run, settings, dataset, network, noise)
        )
        for method in settings.methods:
            results.part(
                f"{dataset}/{network}/{noise:g}/{method}",
                functools.partial(_tune_and_train, make, settings, method),
            )


def _make_run(
    settings: Settings, dataset: str, network: str, noise: float
) -> Callable:
    """Return a function that trains and evaluates.

    It returns accuracies and losses of as many seeds as tuning has.
    """
    options = settings.train, settings.validation, settings.pool, noise
    splits = split(dataset, *options)
    _, images, labels, *_ = splits.final
    model = MODELS[network](
        getattr(settings, network),
        splits.final.num_classes,
        momentum=settings.bn_momentum,
    )
    count = getattr(settings, f"{network}_tuning_seeds")
    epochs = getattr(settings, f"{network}_epochs")
    evaluate = {
        "validation": training.make_evaluate(model, splits.tuning),
        "test": training.make_evaluate(model, splits.final),
    }

    def run(method: str, part: str, first: int, rate: float, decay: float):
        seeds = range(first, first + count)
        train = compile_training(model, GRIDS[method].build, images.shape[1:])
        batches = training.make_batches(
            len(labels), settings.batch_size, epochs, seeds
        )
        variables = training.initialize(model, images, seeds)
        return evaluate[part](
            train(images, labels, variables, batches, rate, decay)
        )

    return run


def _tune_and_train(
    make: Callable[[], Callable], settings: Settings, method: str
) -> dict[str, Any]:
    """Tune a method, then train with it from other seeds."""
    run, accuracies = make(), np.array([])
    tuned = tune(
        GRIDS[method],
        functools.partial(run, method, "validation", TUNING_SEED),
    )
    best = tuned["chosen"]["learning_rate"], tuned["chosen"]["weight_decay"]
    while len(accuracies) < settings.seeds:
        found, _ = run(method, "test", len(accuracies), *best)
        accuracies = np.append(accuracies, found)
    return {**tuned, "accuracy": accuracies[: settings.seeds].tolist()}


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(
        datasets=("digits",),
        networks=("cnn",),
        noises=(0.3,),
        methods=("sgd_decay", "psi_sgd"),
        train=300,
        validation=100,
        pool=1,
        seeds=2,
        cnn=(4,),
        cnn_epochs=1,
    ),
    measure=measure,
    report=report,
    page="experiments/accuracy.md",
    figures=figures,
)
