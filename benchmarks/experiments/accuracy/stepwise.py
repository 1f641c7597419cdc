"""Training of a CNN on a CPU: step by step, and seed by seed."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from benchmarks.data import Dataset
from benchmarks.training import Build, kernel_groups, make_step


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


@functools.cache
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
