"""Training that takes the data as arguments: compiled once for all of them."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from benchmarks.training import Build, kernel_groups, make_step
from psi_optax.models import linen

__all__ = ["MODELS", "compile_training", "looped", "scanned"]

MODELS = {"mlp": linen.MLP, "cnn": linen.CNN}
"""The networks, by name."""


@functools.cache
def compile_training(
    model: nn.Module, build: Build, shape: tuple[int, ...]
) -> Callable:
    """Return the training of a model on images of a shape, for some seeds.

    It is a function `train(images, labels, variables, batches, rate, decay)`,
    of variables and batches with a leading axis for seeds, that returns the
    variables. The learning rate decays to zero along a cosine.
    """
    image = jax.ShapeDtypeStruct((1, *shape), np.float32)
    compiled = looped if isinstance(model, linen.CNN) else scanned
    return compiled(model, build, kernel_groups(model, image))


def scanned(model: nn.Module, build: Build, groups: Any) -> Callable:
    """Compile training as a loop, for all seeds at once."""

    def train(images, labels, variables, batches, rate, decay):
        optimizer = _make(build, groups, batches, rate, decay)
        step = make_step(model, optimizer, images, labels)
        start = variables, optimizer.init(variables["params"])
        return jax.lax.scan(
            lambda carry, batch: (step(carry, batch), None), start, batches
        )[0][0]

    return jax.jit(jax.vmap(train, in_axes=(None, None, 0, 0, None, None)))


def looped(model: nn.Module, build: Build, groups: Any) -> Callable:
    """Compile a step, and take them one by one for each seed.

    On a CPU convolutions are several times slower within a compiled loop, and
    where each seed has kernels of its own.
    """

    @jax.jit
    def begin(variables, *point):
        state = _make(build, groups, *point).init(variables["params"])
        return variables, state

    @functools.partial(jax.jit, donate_argnums=0)
    def advance(carry, index, images, labels, batches, rate, decay):
        optimizer = _make(build, groups, batches, rate, decay)
        return make_step(model, optimizer, images, labels)(
            carry, batches[index]
        )

    def train_one(images, labels, variables, batches, *point):
        carry = begin(variables, batches, *point)
        for index in range(len(batches)):
            carry = advance(carry, index, images, labels, batches, *point)
        return carry[0]

    def train(images, labels, variables, batches, *point):
        trained = [
            train_one(images, labels, _take(variables, seed), order, *point)
            for seed, order in enumerate(jnp.asarray(batches))
        ]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trained)

    return train


def _make(build: Build, groups: Any, batches: Any, rate: Any, decay: Any):
    schedule = optax.cosine_decay_schedule(rate, len(batches))
    return build(rate=schedule, decay=decay, groups=groups)


def _take(variables: Any, seed: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[seed], variables)
