"""Settings and runs of the experiment with unbalanced layers."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np

from benchmarks import data, training
from benchmarks.experiments.tuning import tune
from benchmarks.experiments.two_layers import TwoLayers
from benchmarks.experiments.unbalanced.report import figures, report
from benchmarks.experiments.unbalanced.training import make_curves, scale_layers
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Count, Positive, at_least, one_of, some
from benchmarks.harness.results import Results
from benchmarks.optimizers import OPTIMIZERS, TUNED, Tuned

TUNING_SEED = 1000  # far from the seeds of the final runs, which start at 0

BALANCED = (1.0, 1.0)


def _psi_sgd_unit(rate: Any, groups: Any):
    return OPTIMIZERS["psi_sgd"].make(rate, groups, radius=1.0)


COMPARED = TUNED | {
    "psi_sgd_unit": Tuned(
        "psi_sgd, radius 1", _psi_sgd_unit, TUNED["psi_sgd"].rates
    )
}
"""The methods, with the grids for weights that are not multiplied."""

RETUNED = {
    name: dataclasses.replace(COMPARED[name], rates=rates, decays=decays)
    for name, rates, decays in (
        # A rate for each factor of ten: from where the short layer would train
        # well to where the scales of the last normalization leap.
        ("sgd", tuple(10.0**power for power in range(-9, 3)), ()),
        ("sgd_decay", (0.01, 0.03, 0.1, 0.3), (0.03, 0.1, 0.3)),
        ("adamw", (0.001, 0.003, 0.01, 0.03), (1.0, 10.0, 100.0)),
    )
}
"""Methods with grids for the unbalanced weights."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment.

    Attributes:
        dataset: Name of the data set.
        examples: Number of its training images that are used.
        factors: Factors of the two kernels.
        epsilons: Epsilons of batch normalization. All is tuned at the first,
            which should be too small to matter.
        width: Number of hidden units.
        epochs: Number of epochs of each training.
        batch_size: Number of examples in a batch.
        tuning_seeds: Number of seeds in tuning.
        seeds: Number of seeds of the final runs.
        methods: Optimizers that are compared.
        retuned: Optimizers that are tuned for the unbalanced weights too.
    """

    dataset: Annotated[str, one_of(data.NAMES)] = "mnist"
    examples: Count = 10_000
    factors: tuple[Positive, Positive] = (1e4, 1e-4)
    epsilons: tuple[Positive, Positive] = (1e-20, 1e-5)
    width: Count = 100
    epochs: Count = 10
    batch_size: Count = 100
    tuning_seeds: Count = 2
    seeds: Annotated[int, at_least(2)] = 4
    methods: Annotated[tuple[str, ...], some(one_of(COMPARED))] = (
        *("sgd", "sgd_decay", "adamw", "weight_rescaling", "sgd_g"),
        *("psi_sgd", "psi_adam", "psi_sgd_unit"),
    )
    retuned: Annotated[tuple[str, ...], some(one_of(RETUNED))] = tuple(RETUNED)


def measure(settings: Settings, results: Results) -> None:
    """Tune every method, then train with it.

    The parts of a method are its tuning, "tuned NAME" or "retuned NAME", and
    the final run of each condition, "tuned NAME, CONDITION".
    """
    full = data.load(settings.dataset)
    full = full._replace(
        train_images=full.train_images[: settings.examples],
        train_labels=full.train_labels[: settings.examples],
    )
    seeds = range(TUNING_SEED, TUNING_SEED + settings.tuning_seeds)
    epsilon, _ = settings.epsilons
    tuning = _make_train(settings, epsilon, data.hold_out(full), seeds)
    conditions = _conditions(settings, full)
    cases = [("tuned", name, BALANCED) for name in settings.methods]
    cases += [("retuned", name, settings.factors) for name in settings.retuned]
    results.expect(4 * len(settings.methods) + 3 * len(settings.retuned))
    for when, name, factors in cases:
        tuned = results.part(
            f"{when} {name}",
            functools.partial(_tune, tuning, when, name, factors),
        )
        best = tuned["chosen"]["learning_rate"], tuned["chosen"]["weight_decay"]
        for condition, (train, scales) in conditions.items():
            if (when, condition) != ("retuned", "balanced"):
                results.part(
                    f"{when} {name}, {condition}",
                    functools.partial(_train, train, name, scales, *best),
                )


def _conditions(settings: Settings, full: data.Dataset) -> dict[str, tuple]:
    """Return the final training and the factors of each condition."""
    seeds = range(settings.seeds)
    exact, usual = (
        _make_train(settings, epsilon, full, seeds)
        for epsilon in settings.epsilons
    )
    return {
        "balanced": (exact, BALANCED),
        "unbalanced": (exact, settings.factors),
        "usual epsilon": (usual, settings.factors),
    }


def _tune(train: Callable, when: str, name: str, factors: Any):
    method = {"tuned": COMPARED, "retuned": RETUNED}[when][name]
    return tune(method, lambda *point: train(name, factors, *point)[:2])


def _train(train: Callable, *arguments: Any) -> dict[str, Any]:
    """Return the seeds' accuracies and last losses, and their mean curve."""
    accuracy, _, curve = train(*arguments)
    curve = np.asarray(curve, np.float64)
    return {
        "accuracy": np.asarray(accuracy, np.float64).tolist(),
        "loss": _finite(curve[:, -1]),
        "curve": _finite(curve.mean(0)),
    }


def _finite(values: np.ndarray) -> list[float | None]:
    """Return None where a training diverged: JSON has no NaN."""
    return [x if np.isfinite(x) else None for x in values.tolist()]


def _make_train(
    settings: Settings, epsilon: float, dataset: data.Dataset, seeds: range
) -> Callable:
    """Return the training with a method, as a function.

    It returns each seed's accuracy and loss, both of tests, and its curve.
    """
    model = TwoLayers(
        settings.width, dataset.num_classes, epsilon=epsilon, momentum=0.9
    )
    images, epochs = dataset.train_images, settings.epochs
    variables = training.initialize(model, images, seeds)
    batches = training.make_batches(
        len(images), settings.batch_size, epochs, seeds
    )
    evaluate = training.make_evaluate(model, dataset)

    @functools.cache
    def compiled(name: str) -> Callable:
        return make_curves(model, COMPARED[name].build, dataset, epochs)

    def train(name: str, factors: Any, rate: float, decay: float):
        start = scale_layers(variables, factors)
        after, curve = compiled(name)(start, batches, rate, decay)
        return *evaluate(after), curve

    return train


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(
        dataset="digits",
        examples=300,
        width=8,
        epochs=2,
        seeds=2,
        methods=("sgd",),
        retuned=("sgd",),
    ),
    measure=measure,
    report=report,
    page="experiments/unbalanced.md",
    figures=figures,
)
