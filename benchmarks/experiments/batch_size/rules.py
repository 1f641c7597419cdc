"""Training at all learning rates of a grid, by batch size."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from benchmarks import training
from benchmarks.data import Dataset
from benchmarks.experiments.dense import columns, listed
from benchmarks.optimizers import OPTIMIZERS

RULES = {"linear": 1.0, "square root": 0.5}
"""The powers of the batch size that the rules multiply a rate by."""

LOWEST = {"sgd": -7, "psi_sgd": -7, "adam": -10, "psi_adam": -10}
"""The optimizers, and the power of two that is their lowest rate."""


def rates(name: str, count: int) -> list[float]:
    """Return the learning rates of an optimizer, a factor of two apart."""
    return [2.0 ** (LOWEST[name] + index) for index in range(count)]


def train_all(
    model: nn.Module,
    dataset: Dataset,
    name: str,
    batch_size: int,
    *,
    count: int,
    epochs: int,
    seeds: int,
) -> dict[str, Any]:
    """Train at every rate, and return losses and accuracies by rate and seed.

    The rates decay along a cosine. The loss is that of all training images as
    one batch, the accuracy that of the test part with running statistics.
    """
    images, labels = dataset.train_images, dataset.train_labels
    start = training.begin(model, images, range(seeds), batch_size, epochs)
    groups = columns(jax.tree.map(lambda x: x[0], start[0]["params"]))

    def build(rate, groups, **_):
        return OPTIMIZERS[name].make(rate, groups)

    train = training.make_training(model, build, groups)
    loss = training.make_loss(model)

    def run(images, labels, variables, batches, rate):
        after, _ = train(images, labels, variables, batches, rate, 0.0)
        return after, loss(after["params"], after, images, labels)[0]

    of_seeds = jax.vmap(run, (None, None, 0, 0, None))
    of_rates = jax.jit(jax.vmap(of_seeds, (None, None, None, None, 0)))
    grid = rates(name, count)
    after, losses = of_rates(
        jnp.asarray(images), jnp.asarray(labels), *start, jnp.asarray(grid)
    )
    evaluate = training.make_evaluate(model, dataset)
    accuracies = [
        evaluate(jax.tree.map(lambda x, i=i: x[i], after))[0]
        for i in range(count)
    ]
    return {
        "rates": grid,
        "loss": listed(losses),
        "accuracy": listed(np.stack(accuracies)),
    }


def means(part: dict[str, Any]) -> np.ndarray:
    """Return the mean loss of each rate; infinite where a seed diverged."""
    values = np.array(part["loss"], float).mean(1)
    return np.where(np.isfinite(values), values, np.inf)


def best(part: dict[str, Any]) -> int:
    """Return the index of the rate of the lowest mean loss."""
    return int(np.argmin(means(part)))


def moved(index: int, power: float, ratio: float) -> int:
    """Return the index of a rate that a rule multiplies for another batch.

    Examples:
        >>> moved(3, 0.5, 16.0)
        5
    """
    return index + round(power * float(np.log2(ratio)))
