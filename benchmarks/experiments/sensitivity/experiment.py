"""How exactly have rate, decay and initial scale to be chosen?

    python -m benchmarks.experiments.sensitivity

`docs/experiments/sensitivity.md` says what is measured.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import training
from benchmarks.experiments import sensitivity_report
from benchmarks.experiments.accuracy_data import split
from benchmarks.experiments.accuracy_runs import make_run
from benchmarks.experiments.command import Experiment, main
from benchmarks.experiments.results import Results
from benchmarks.methods import METHODS
from benchmarks.rescaling import scale_filters
from psi_optax.models import linen

__all__ = ["EXPERIMENT", "Settings"]


class Settings(NamedTuple):
    """What the numbers depend on.

    Attributes:
        grids: by method, its lowest rate and its lowest decay. From there on
            rates grow by half a decade each, and decays by a decade.
        rates: number of rates.
        decays: number of decays.
        scales: factors of the initial filters.
        seeds: number of seeds.
        dataset: name of the data set.
        train: number of training images.
        pool: how many pixels become one, in each direction.
        epochs: number of epochs.
        batch_size: number of examples in a batch.
        widths: numbers of hidden units.
        bn_momentum: momentum of the running statistics.
    """

    grids: tuple[tuple[str, float, float], ...] = (
        ("sgd_decay", 1e-3, 1e-4),
        ("adamw", 1e-4, 1e-2),
        ("adamp", 1e-4, 1e-2),
        ("rotational", 1e-3, 1e-4),
        ("psi_sgd_decay", 1e-3, 1e-4),
        ("psi_adam_decay", 1e-4, 1e-2),
    )
    rates: int = 9
    decays: int = 5
    scales: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    seeds: int = 3
    dataset: str = "fashion-mnist"
    train: int = 2000
    pool: int = 2
    epochs: int = 10
    batch_size: int = 64
    widths: tuple[int, ...] = (64, 64)
    bn_momentum: float = 0.9


def measure(settings: Settings, results: Results) -> None:
    """A part for each method, scale and seed: accuracies, rate by decay."""
    runs = functools.cache(lambda: _Runs(settings))
    for name, *_ in settings.grids:
        for scale in settings.scales:
            for seed in range(settings.seeds):
                results.part(
                    f"{name}/{scale:g}/{seed}",
                    functools.partial(_measure, runs, name, scale, seed),
                )


def _measure(runs, name: str, scale: float, seed: int) -> list[list[float]]:
    return runs().measure(name, scale, seed).tolist()


class _Runs:
    """Training at all rates and decays at once."""

    def __init__(self, settings: Settings):
        splits = split(settings.dataset, settings.train, 0, settings.pool, 0.0)
        self.settings, self.dataset = settings, splits.final
        self.lowest = {name: (x, y) for name, x, y in settings.grids}
        self.model = linen.MLP(
            settings.widths,
            splits.final.num_classes,
            momentum=settings.bn_momentum,
        )
        self.groups = training.kernel_groups(
            self.model, self.dataset.train_images
        )
        self.evaluate = training.make_evaluate(self.model, self.dataset)
        self.compiled = functools.cache(self._compile)

    def _compile(self, name: str):
        run = make_run(self.model, METHODS[name].build, self.groups)
        # All points share the batches, so that the first layer is one product.
        return jax.jit(jax.vmap(run, in_axes=(None, None, None, None, 0, 0)))

    def measure(self, name: str, scale: float, seed: int) -> np.ndarray:
        """Test accuracies, of shape (rates, decays)."""
        seeds = range(seed, seed + 1)
        images, labels = self.dataset.train_images, self.dataset.train_labels
        start = training.initialize(self.model, images, seeds)
        start = scale_filters(start, self.groups.groups, scale)
        batches = training.make_batches(
            len(labels), self.settings.batch_size, self.settings.epochs, seeds
        )
        rates, decays = sensitivity_report.grid(
            *self.lowest[name], self.settings.rates, self.settings.decays
        )
        points = np.meshgrid(rates, decays, indexing="ij")
        variables = self.compiled(name)(
            images,
            labels,
            jax.tree.map(lambda leaf: leaf[0], start),
            batches[0],
            *(jnp.asarray(values.ravel(), jnp.float32) for values in points),
        )
        accuracy, _ = self.evaluate(variables)
        return np.asarray(accuracy, np.float64).reshape(points[0].shape)


EXPERIMENT = Experiment(
    "sensitivity",
    "Accuracy over learning rate, weight decay and initial scale.",
    Settings(),
    Settings(
        grids=(("sgd_decay", 1e-2, 1e-2), ("psi_sgd_decay", 1e-2, 1e-2)),
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
    measure,
    sensitivity_report.table,
    sensitivity_report.figure,
)


if __name__ == "__main__":
    main(EXPERIMENT)
