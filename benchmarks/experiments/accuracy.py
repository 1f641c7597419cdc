"""How accurate are networks that each optimizer trained, with right labels?

    python -m benchmarks.experiments.accuracy

And with wrong ones: `docs/experiments/accuracy.md` says what is measured.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from benchmarks import training
from benchmarks.experiments import accuracy_report
from benchmarks.experiments.accuracy_data import split
from benchmarks.experiments.accuracy_runs import looped, scanned
from benchmarks.experiments.command import Experiment, main
from benchmarks.experiments.results import Results
from benchmarks.methods import METHODS
from benchmarks.tuning import tune
from psi_optax.models import linen

__all__ = ["EXPERIMENT", "Settings"]

TUNING_SEED = 1000  # far from the seeds of the final runs, which start at 0

# Decays around what is best for these numbers of steps.
_SGD_DECAYS, _ADAM_DECAYS = (0.003, 0.03, 0.3), (0.3, 3.0, 30.0)

TUNED = METHODS | {
    name: dataclasses.replace(METHODS[name], weight_decays=decays)
    for name, decays in {
        "sgd_decay": _SGD_DECAYS,
        "rotational": _SGD_DECAYS,
        "adamw": _ADAM_DECAYS,
        "adamp": _ADAM_DECAYS,
        "psi_sgd_decay": _SGD_DECAYS,
        "psi_adam_decay": _ADAM_DECAYS,
    }.items()
}
"""The methods, with the grids of this experiment."""


class Settings(NamedTuple):
    """What the numbers depend on.

    Attributes:
        datasets: names of data sets.
        networks: "mlp" or "cnn", its number of epochs, and its number of seeds
            in tuning, which divides `seeds`.
        noises: shares of wrong labels.
        methods: names of methods; `accuracy_report.BASELINE` is one.
        train: number of training images.
        validation: number of validation images.
        pool: how many pixels become one, in each direction.
        seeds: number of seeds of the final runs.
        batch_size: number of examples in a batch.
        mlp: numbers of hidden units.
        cnn: numbers of channels.
        bn_momentum: momentum of the running statistics.
    """

    datasets: tuple[str, ...] = ("mnist", "fashion-mnist")
    networks: tuple[tuple[str, int, int], ...] = (("mlp", 15, 2), ("cnn", 4, 1))
    noises: tuple[float, ...] = (0.0, 0.3)
    methods: tuple[str, ...] = (
        *("sgd", "sgd_decay", "adamw", "adamp", "sgd_g"),
        *("weight_rescaling", "rotational", "psi_sgd", "psi_sgdm", "psi_adam"),
        *("psi_sgd_decay", "psi_adam_decay"),
    )
    train: int = 5000
    validation: int = 5000
    pool: int = 2
    seeds: int = 10
    batch_size: int = 64
    mlp: tuple[int, ...] = (64, 64)
    cnn: tuple[int, ...] = (8, 16, 32)
    bn_momentum: float = 0.9


def measure(settings: Settings, results: Results) -> None:
    """A part for each data set, network, noise and method."""
    for dataset, network, noise in itertools.product(
        settings.datasets, settings.networks, settings.noises
    ):
        runs = functools.cache(
            functools.partial(_Runs, settings, dataset, network, noise)
        )
        for method in settings.methods:
            results.part(
                f"{dataset}/{network[0]}/{noise:g}/{method}",
                lambda runs=runs, method=method: runs().measure(method),
            )


class _Runs:
    """Training of a network on a data set."""

    def __init__(
        self,
        settings: Settings,
        dataset: str,
        network: tuple[str, int, int],
        noise: float,
    ):
        splits = split(
            dataset,
            settings.train,
            settings.validation,
            settings.pool,
            noise,
        )
        self.network, self.epochs, self.chunk = network
        self.batch_size, self.seeds = settings.batch_size, settings.seeds
        self.dataset = splits.final
        self.model = NETWORKS[self.network].model(
            getattr(settings, self.network),
            splits.final.num_classes,
            momentum=settings.bn_momentum,
        )
        self.validate = training.make_evaluate(self.model, splits.tuning)
        self.test = training.make_evaluate(self.model, splits.final)

    def measure(self, method: str) -> dict[str, Any]:
        """Tune a method, then train with it from other seeds."""
        shape = self.dataset.train_images.shape[1:]
        train = _compiled(self.network, self.model, method, shape)

        def run(evaluate, first, rate, decay):
            seeds = range(first, first + self.chunk)
            variables = self._train(train, seeds, rate, decay)
            return _seed_by_seed(evaluate, variables)

        tuned = tune(
            TUNED[method],
            lambda rate, decay: run(self.validate, TUNING_SEED, rate, decay),
            lambda: None,
        )
        best = tuned["chosen"]["learning_rate"], tuned["chosen"]["weight_decay"]
        accuracy = [
            run(self.test, first, *best)[0]
            for first in range(0, self.seeds, self.chunk)
        ]
        return {**tuned, "accuracy": np.concatenate(accuracy).tolist()}

    def _train(self, train: Callable, seeds: range, rate: float, decay: float):
        images, labels = self.dataset.train_images, self.dataset.train_labels
        variables = training.initialize(self.model, images, seeds)
        batches = training.make_batches(
            len(labels), self.batch_size, self.epochs, seeds
        )
        return train(images, labels, variables, batches, rate, decay)


class _Network(NamedTuple):
    model: Callable[..., nn.Module]
    compile: Callable[..., Callable]


NETWORKS = {
    "mlp": _Network(linen.MLP, scanned),
    "cnn": _Network(linen.CNN, looped),
}
"""The networks by name, and how each is trained."""


@functools.cache
def _compiled(
    network: str, model: nn.Module, method: str, shape: tuple[int, ...]
) -> Callable:
    """Once for all data sets of the same shapes."""
    image = jax.ShapeDtypeStruct((1, *shape), np.float32)
    groups = training.kernel_groups(model, image)
    return NETWORKS[network].compile(model, TUNED[method].build, groups)


def _seed_by_seed(
    evaluate: Callable, variables: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies and losses, not for all at once: see `looped`."""
    count = len(jax.tree.leaves(variables)[0])
    found = [
        evaluate(jax.tree.map(lambda x, i=i: x[i : i + 1], variables))
        for i in range(count)
    ]
    accuracies, losses = np.concatenate(found, 1, dtype=np.float64)
    return accuracies, losses


EXPERIMENT = Experiment(
    "accuracy",
    "Tuned optimizers compared on MNIST and Fashion-MNIST.",
    Settings(),
    Settings(
        datasets=("digits",),
        networks=(("cnn", 1, 1),),
        noises=(0.3,),
        methods=("sgd_decay", "psi_sgd"),
        train=300,
        validation=100,
        pool=1,
        seeds=2,
        cnn=(4,),
    ),
    measure,
    accuracy_report.table,
    accuracy_report.figure,
)


if __name__ == "__main__":
    main(EXPERIMENT)
