"""What if one layer's weights are very long and the other's very short?

    python -m benchmarks.experiments.unbalanced
    python -m benchmarks.experiments.unbalanced --docs

After figure 1 of the PSI paper: two linear maps, each with a batch
normalization behind it, on MNIST, with the first kernel multiplied by 1e4 and
the second by 1e-4. All methods are tuned where nothing is multiplied, and then
used as they are; some are tuned once more for the unbalanced weights.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import psi_optax
from benchmarks import data, training
from benchmarks.experiments import unbalanced_report
from benchmarks.experiments.command import Experiment
from benchmarks.experiments.command import main as run
from benchmarks.experiments.results import Results
from benchmarks.experiments.unbalanced_network import TwoLayers
from benchmarks.experiments.unbalanced_training import (
    first,
    in_epochs,
    make_curves,
    scale_layers,
)
from benchmarks.methods import METHODS, MOMENTUM, Method
from benchmarks.tuning import tune

__all__ = ["EXPERIMENT", "Settings", "main", "measure"]

TUNING_SEED = 1000  # far from the seeds of the final runs, which start at 0


class Settings(NamedTuple):
    """What the numbers depend on.

    Attributes:
        dataset: name of the data set.
        examples: how many of its training images are used.
        factors: those of the two kernels.
        epsilons: of batch normalization. At the first, which should be too
            small to matter, all is tuned.
        width: number of hidden units.
        epochs: number of epochs of each training.
        batch_size: number of examples in a batch.
        tuning_seeds: number of seeds in tuning.
        seeds: number of seeds of the final runs.
        methods: names of those compared.
        retuned: names of those that are tuned for the unbalanced weights too.
    """

    dataset: str = "mnist"
    examples: int = 10_000
    factors: tuple[float, float] = (1e4, 1e-4)
    epsilons: tuple[float, float] = (1e-20, 1e-5)
    width: int = 100
    epochs: int = 10
    batch_size: int = 100
    tuning_seeds: int = 2
    seeds: int = 4
    methods: tuple[str, ...] = (
        *("sgd", "sgd_decay", "adamw", "weight_rescaling", "sgd_g"),
        *("psi_sgd", "psi_adam", "psi_sgd_unit"),
    )
    retuned: tuple[str, ...] = ("sgd", "sgd_decay", "adamw")


SMOKE = Settings(
    dataset="digits",
    examples=300,
    width=8,
    epochs=2,
    tuning_seeds=2,
    seeds=2,
    methods=("sgd",),
    retuned=("sgd",),
)


def _psi_sgd_unit(rate: Any, groups: Any, **_: Any):
    return psi_optax.psi_sgd(rate, groups, momentum=MOMENTUM, radius=1.0)


COMPARED = {
    **METHODS,
    "psi_sgd_unit": Method(
        "psi_sgd, radius 1", _psi_sgd_unit, METHODS["psi_sgd"].learning_rates
    ),
}
"""The methods, with the grids for weights that are not multiplied."""

RETUNED = {
    # One rate for each factor of ten: from where the short layer would train
    # well to where the head's scales leap.
    "sgd": (tuple(10.0**power for power in range(-9, 3)), (0.0,)),
    "sgd_decay": ((0.01, 0.03, 0.1, 0.3), (0.03, 0.1, 0.3)),
    "adamw": ((0.001, 0.003, 0.01, 0.03), (1.0, 10.0, 100.0)),
}
"""The rates and decays that are tried for the unbalanced weights."""


class _Runs:
    """Training of one network on one split, from one set of seeds."""

    def __init__(
        self,
        settings: Settings,
        epsilon: float,
        dataset: data.Dataset,
        seeds: range,
    ):
        # Without the epsilon, which no initial value depends on.
        model = TwoLayers(settings.width, dataset.num_classes)
        images, size = dataset.train_images, len(dataset.train_labels)
        self.variables = training.initialize(model, images, seeds)
        self.model = model.clone(epsilon=epsilon)
        self.dataset = dataset
        batches = training.make_batches(
            size, settings.batch_size, settings.epochs, seeds
        )
        self.batches = in_epochs(batches, settings.epochs)
        self.evaluate = training.make_evaluate(self.model, dataset)
        self._programs: dict[training.Build, Callable] = {}

    def _compiled(self, build: training.Build) -> Callable:
        if build not in self._programs:
            self._programs[build] = make_curves(self.model, build, self.dataset)
        return self._programs[build]

    def train(
        self,
        method: Method,
        factors: Sequence[float],
        rate: float,
        decay: float,
    ) -> tuple[Any, Any, Any]:
        """Return each seed's accuracy, loss (both of tests) and curve."""
        start = scale_layers(self.variables, factors)
        train = self._compiled(method.build)
        after, curve = train(start, self.batches, rate, decay)
        return *self.evaluate(after), curve


BALANCED = (1.0, 1.0)


def measure(settings: Settings, results: Results) -> None:
    """Tune every method, then train with it.

    Args:
        settings: the experiment.
        results: gets, for each method, what `benchmarks.tuning.tune` returns
            as "tuned NAME" and, where it is, as "retuned NAME"; and the curves
            and accuracies of each final run.
    """
    full = first(data.load(settings.dataset), settings.examples)
    tuning = _Runs(
        settings,
        settings.epsilons[0],
        data.hold_out(full),
        range(TUNING_SEED, TUNING_SEED + settings.tuning_seeds),
    )
    final = [
        _Runs(settings, epsilon, full, range(settings.seeds))
        for epsilon in settings.epsilons
    ]
    names = [("tuned", name) for name in settings.methods]
    names += [("retuned", name) for name in settings.retuned]
    for when, name in names:
        method, factors = COMPARED[name], BALANCED
        if when == "retuned":
            rates, decays = RETUNED[name]
            method = Method(method.label, method.build, rates, decays)
            factors = settings.factors
        tuned = results.part(
            f"{when} {name}", functools.partial(_tune, tuning, method, factors)
        )
        best = tuned["chosen"]
        point = best["learning_rate"], best["weight_decay"]
        conditions = {
            "balanced": (final[0], BALANCED),
            "unbalanced": (final[0], settings.factors),
            "usual epsilon": (final[1], settings.factors),
        }
        for condition, (runs, factors) in conditions.items():
            if when == "retuned" and condition == "balanced":
                continue
            results.part(
                f"{when} {name}, {condition}",
                functools.partial(_train, runs, method, factors, *point),
            )


def _tune(
    runs: _Runs, method: Method, factors: Sequence[float]
) -> dict[str, Any]:
    return tune(
        method,
        lambda rate, decay: runs.train(method, factors, rate, decay)[:2],
        lambda: None,
    )


def _train(runs: _Runs, *arguments: Any) -> dict[str, Any]:
    accuracy, _, curve = runs.train(*arguments)
    # The seeds' mean at every epoch, and each seed's last loss; a training
    # that diverged has none, and JSON has no NaN.
    curve = np.asarray(curve, np.float64)
    return {
        "accuracy": np.asarray(accuracy, np.float64).tolist(),
        "loss": _finite(curve[:, -1]),
        "curve": _finite(curve.mean(0)),
    }


def _finite(values: np.ndarray) -> list[float | None]:
    return [x if np.isfinite(x) else None for x in values.tolist()]


EXPERIMENT = Experiment(
    name="unbalanced",
    about="Train from a long layer and a short one, with each optimizer.",
    settings=Settings(),
    smoke=SMOKE,
    measure=measure,
    table=unbalanced_report.table,
    figure=unbalanced_report.figure,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment from the command line.

    Args:
        arguments: the command line; that of the process by default.
    """
    run(EXPERIMENT, arguments)


if __name__ == "__main__":
    main()
