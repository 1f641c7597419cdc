"""Training that takes the data as arguments: compiled once for all of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from benchmarks.training import Build, make_step

__all__ = ["looped", "make_run", "scanned"]


def make_run(model: nn.Module, build: Build, groups: Any) -> Callable:
    """Training from one seed, at a rate that falls to zero along a cosine.

    Args:
        model: a Linen model of `psi_optax.models`.
        build: makes the optimizer from `rate`, `decay` and `groups`.
        groups: the model's scale groups.

    Returns:
        A function `run(images, labels, variables, batches, rate, decay)` that
        returns the variables after training. It is not compiled.
    """

    def run(images, labels, variables, batches, rate, decay):
        schedule = optax.cosine_decay_schedule(rate, len(batches))
        optimizer = build(rate=schedule, decay=decay, groups=groups)
        step = make_step(model, optimizer, images, labels)
        start = variables, optimizer.init(variables["params"])
        return jax.lax.scan(
            lambda carry, batch: (step(carry, batch), None), start, batches
        )[0][0]

    return run


def scanned(model: nn.Module, build: Build, groups: Any) -> Callable:
    """`make_run` compiled, for all seeds at once.

    Returns:
        The function, of variables and batches with an axis for the seeds in
        front.
    """
    run = make_run(model, build, groups)
    return jax.jit(jax.vmap(run, in_axes=(None, None, 0, 0, None, None)))


def looped(model: nn.Module, build: Build, groups: Any) -> Callable:
    """As `scanned`, but step by step and seed by seed.

    On a CPU convolutions are several times slower inside of a loop that is
    compiled, and where each seed has kernels of its own.
    """

    def optimizer(batches, rate, decay):
        schedule = optax.cosine_decay_schedule(rate, len(batches))
        return build(rate=schedule, decay=decay, groups=groups)

    @jax.jit
    def begin(variables, batches, rate, decay):
        state = optimizer(batches, rate, decay).init(variables["params"])
        return variables, state

    def advance(carry, index, images, labels, batches, rate, decay):
        step = make_step(model, optimizer(batches, rate, decay), images, labels)
        return step(carry, batches[index])

    advance = jax.jit(advance, donate_argnums=0)

    def train(images, labels, variables, batches, rate, decay):
        trained = []
        for seed, order in enumerate(jnp.asarray(batches)):
            start = jax.tree.map(lambda leaf, seed=seed: leaf[seed], variables)
            carry = begin(start, order, rate, decay)
            for index in range(len(order)):
                carry = advance(
                    carry, index, images, labels, order, rate, decay
                )
            trained.append(carry[0])
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trained)

    return train
