"""Probes of loss and gradient along the training of deep dense networks."""

import dataclasses
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import data, training
from benchmarks.experiments.dense import (
    EXACT,
    NETWORKS,
    DenseNetwork,
    columns,
    listed,
    rescale,
    training_loss,
)
from benchmarks.experiments.smoothness.report import faults, figures, report
from benchmarks.experiments.smoothness.shift import covariate_shift
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Count, Positives, one_of
from benchmarks.harness.results import Results
from psi_optax.landscape import GradientProbe, gradient_probe


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment."""

    dataset: Annotated[str, one_of(data.NAMES)] = "digits"  # Data set.
    depth: Count = 10  # Hidden layers.
    width: Count = 32  # Hidden units of each.
    rates: Positives = (0.03, 0.1, 0.3)  # Learning rates of SGD.
    batch_size: Count = 128  # Examples in a batch.
    probes: Count = 20  # Points of a training at which it is probed.
    every: Count = 10  # Steps from one of them to the next.
    # Factors of the learning rate, lengths of the probed steps.
    multiples: Positives = (0.5, 1.0, 2.0, 4.0)
    seeds: Count = 5  # Seeds.
    power: Count = 3  # Filters are rescaled by 2^-power to 2^power.


def measure(settings: Settings, results: Results) -> None:
    """Measure a part for each network and learning rate."""
    results.expect(len(NETWORKS) * len(settings.rates))
    dataset = data.load(settings.dataset)
    for name, normalized in NETWORKS.items():
        runs = Runs(settings, dataset, normalized)
        for rate in settings.rates:
            run = partial(runs.probe, rate)
            results.part(f"{name}, rate {rate:g}", run)


class Runs:
    """Trainings of one network by SGD without momentum, all seeds at once."""

    def __init__(
        self, settings: Settings, dataset: data.Dataset, normalized: bool
    ):
        self.settings, self.normalized = settings, normalized
        widths = (settings.width,) * settings.depth
        classes = dataset.num_classes
        model = DenseNetwork(widths, classes, normalized, **EXACT)
        self.loss = training_loss(model)
        self.data = dataset.train_images, dataset.train_labels
        steps = settings.probes * settings.every
        epochs = -(-steps // (len(self.data[1]) // settings.batch_size))
        seeds, sizes = range(settings.seeds), (settings.batch_size, epochs)
        start = training.begin(model, self.data[0], seeds, *sizes)
        self.params, self.batches = start[0]["params"], start[1][:, :steps]
        # A seed is the first axis of params and batches.
        axes = (0, 0, None, None)
        self._look = jax.jit(jax.vmap(self.look, axes))
        self._advance = jax.jit(jax.vmap(self.advance, axes))

    def probe(self, rate: float) -> dict[str, Any]:
        """Train, and return measures by point, and means of each seed."""
        params, every, seen = self.params, self.settings.every, []
        for index in range(0, self.batches.shape[1], every):
            here = self.batches[:, index : index + every]
            seen.append(self._look(params, here[:, 0], self.data, rate))
            params = self._advance(params, here, self.data, rate)
        measures, shifts = jax.tree.map(lambda *x: np.stack(x), *seen)
        final = jax.vmap(self.loss, (0, None, None))(params, *self.data)
        return {
            "step": list(range(0, self.batches.shape[1], every)),
            "loss": listed(final),
            "views": jax.tree.map(_summarize, measures),
            "shifts": jax.tree.map(lambda x: listed(x.mean((0, 1))), shifts),
        }

    def look(self, params, batch, pixels, rate):
        """Measure one seed's network on a batch, in each of the coordinates."""
        images, labels = pixels
        args, groups = (images[batch], labels[batch]), columns(params)
        steps = rate * jnp.asarray(self.settings.multiples)
        views = {"weights": (params, None), "directions": (params, groups)}
        if self.normalized:
            other = rescale(params, True, self.settings.power)
            views["weights, rescaled"] = other, None
            views["directions, rescaled"] = other, groups
        found = {
            name: measures(
                gradient_probe(self.loss, x, *args, steps=steps, groups=g)
            )
            for name, (x, g) in views.items()
        }
        loss = lambda x: self.loss(x, *args)  # noqa: E731
        moved = self.advance(params, batch[None], pixels, rate)
        shifts = {
            name: covariate_shift(loss, params, moved, g)._asdict()
            for name, g in (("weights", None), ("directions", groups))
        }
        return found, shifts

    def advance(self, params, batches, pixels, rate):
        """Return one seed's weights after steps of SGD on batches."""
        images, labels = pixels

        def step(params, batch):
            gradient = jax.grad(self.loss)(params, images[batch], labels[batch])
            change = jax.tree.map(lambda g: -rate * g, gradient)
            return optax.apply_updates(params, change), None

        return jax.lax.scan(step, params, batches)[0]


def measures(probe: GradientProbe) -> dict[str, jax.Array]:
    """Return the range of losses, and the worst of each measure of steps."""
    losses = jnp.append(probe.losses, probe.loss)
    return {
        "range": losses.max() - losses.min(),
        "change": probe.change.max(),
        "cosine": probe.cosine.min(),
        "smoothness": probe.smoothness.max(),
    }


def _summarize(values):
    """Return medians of seeds by point, and the mean over points by seed."""
    medians, means = np.median(values, 1), values.mean(0)
    return {"curve": listed(medians), "means": listed(means, 7)}


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(depth=2, width=8, rates=(0.1,), probes=2, every=2, seeds=2),
    measure=measure,
    report=report,
    faults=faults,
    figures=figures,
    page="experiments/smoothness.md",
)
