"""Curvature and noise of two networks, and rates of several optimizers."""

import dataclasses
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import data, training
from benchmarks.experiments.batch_size.curvature import BatchCurvature
from benchmarks.experiments.batch_size.report import figures, report
from benchmarks.experiments.batch_size.rules import LOWEST, train_all
from benchmarks.experiments.dense import (
    EXACT,
    NETWORKS,
    DenseNetwork,
    columns,
    listed,
    rescale,
    training_loss,
)
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import (
    Count,
    Counts,
    Positive,
    at_least,
    one_of,
    some,
)
from benchmarks.harness.results import Results
from benchmarks.optimizers import OPTIMIZERS
from psi_optax.landscape import gradient_noise


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment."""

    dataset: Annotated[str, one_of(data.NAMES)] = "digits"  # Data set.
    # Hidden units of each layer.
    widths: Counts = (24, 24)
    rate: Positive = 0.05  # Learning rate of SGD with momentum 0.9, constant.
    batch_size: Count = 64  # Examples in its batches.
    # Epochs after which the noise scale is measured; curvature at the last.
    epochs: Annotated[tuple[int, ...], some(at_least(0))] = (0, 1, 2, 4, 8, 16)
    noise_batch: Count = 32  # Examples in the batches of the noise scale.
    # Examples in the batches of the Hessians.
    hessian_batches: Counts = (16, 32, 64, 128, 256, 512)
    draws: Annotated[int, at_least(2)] = 16  # Batches of each size.
    products: Count = 24  # Products of a Lanczos iteration.
    probes: Count = 4  # Random steps for each batch.
    power: Count = 3  # Filters are rescaled by 2^-power to 2^power.
    # Optimizers whose rates are tried.
    optimizers: Annotated[tuple[str, ...], some(one_of(LOWEST))] = tuple(LOWEST)
    # Examples in a batch of training, powers of 4 apart; rules begin at the
    # first.
    batches: Counts = (8, 32, 128, 512)
    rates: Count = 12  # Learning rates, a factor of two apart.
    rate_epochs: Count = 20  # Epochs at each rate.
    seeds: Count = 3  # Seeds at each rate.


def measure(settings: Settings, results: Results) -> None:
    """Measure curvature and noise of each network, and rates."""
    sizes = len(settings.optimizers) * len(settings.batches)
    results.expect(2 * len(NETWORKS) + sizes)
    dataset = data.load(settings.dataset)
    for name, normalized in NETWORKS.items():
        run = _Run(settings, dataset, normalized)
        results.part(f"{name}, noise", run.noise)
        results.part(f"{name}, curvature", run.curvature)
    model = DenseNetwork(settings.widths, dataset.num_classes, **EXACT)
    options = {
        "count": settings.rates,
        "epochs": settings.rate_epochs,
        "seeds": settings.seeds,
    }
    for name in settings.optimizers:
        for size in settings.batches:
            train = partial(train_all, model, dataset, name, size, **options)
            results.part(f"{name}, batch {size}", train)


class _Run:
    """One training of one network, at some of its epochs."""

    def __init__(self, settings, dataset, normalized):
        self.settings, self.normalized = settings, normalized
        self.data = dataset.train_images, dataset.train_labels
        sizes = settings.widths, dataset.num_classes
        self.model = DenseNetwork(*sizes, normalized, **EXACT)
        self.loss = training_loss(self.model)
        self._passed = None

    def points(self) -> list[Any]:
        """Return the params after each of the epochs."""
        if self._passed is None:
            self._passed = list(self._train())
        return self._passed

    def _train(self):
        settings, (images, labels) = self.settings, self.data
        last = max(settings.epochs)
        sizes = settings.batch_size, max(last, 1)
        start = training.begin(self.model, images, range(1), *sizes)
        variables, batches = jax.tree.map(lambda x: x[0], start)
        optimizer = OPTIMIZERS["sgd"].make(settings.rate)
        step = training.make_step(
            self.model, optimizer, jnp.asarray(images), jnp.asarray(labels)
        )
        epoch = jax.jit(partial(jax.lax.scan, step))
        carry = variables, optimizer.init(variables["params"])
        steps = len(batches) // max(last, 1)
        for index in range(last + 1):
            if index in settings.epochs:
                yield carry[0]["params"]
            here = batches[index * steps : (index + 1) * steps]
            if len(here):
                carry, _ = epoch(carry, here)

    def noise(self) -> dict[str, Any]:
        """Measure the noise scale in both coordinates, and rescaled."""
        size, found = self.settings.noise_batch, {}
        order = np.random.RandomState(0).permutation(len(self.data[1]))
        count = len(order) // size
        batches = [
            tuple(x[order[i * size : (i + 1) * size]] for x in self.data)
            for i in range(count)
        ]
        points = self.points()
        groups = columns(points[0])
        copies = {"": points}
        if self.normalized:
            power = self.settings.power
            other = [rescale(x, True, power) for x in points]
            copies[", rescaled"] = other
        for suffix, params in copies.items():
            for name, known in (("weights", None), ("directions", groups)):
                noises = [
                    gradient_noise(self.loss, x, batches, groups=known)
                    for x in params
                ]
                found[name + suffix] = {
                    field: listed([getattr(x, field) for x in noises], 6)
                    for field in noises[0]._fields
                }
        losses = [self.loss(x, *self.data) for x in points]
        return {"loss": listed(losses), "views": found}

    def curvature(self) -> dict[str, Any]:
        """Measure the Hessians of batches at the last point."""
        settings, params = self.settings, self.points()[-1]
        options = settings.products, settings.probes
        of = BatchCurvature(self.loss, params, self.data, *options)
        seeds = range(settings.draws)
        return {
            "full": float(of.full.values[0]),
            "residual": float(of.full.residuals[0]),
            "batches": {
                str(size): of.batches(size, seeds)
                for size in settings.hessian_batches
            },
        }


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(
        widths=(8,),
        epochs=(0, 1),
        hessian_batches=(64,),
        draws=2,
        products=6,
        probes=1,
        optimizers=("sgd",),
        batches=(512,),
        rates=2,
        rate_epochs=1,
        seeds=1,
    ),
    measure=measure,
    report=report,
    figures=figures,
    page="experiments/batch-size.md",
)
