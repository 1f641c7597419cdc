"""Training at all rates and seeds at once, and its losses."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.experiments.rescaling.experiment import scale_filters
from benchmarks.experiments.transfer.methods import (
    MUP,
    Method,
    shrink_head,
)
from benchmarks.experiments.transfer.points import Sizes
from benchmarks.experiments.transfer.problems import Problem

TAIL = 10
"""The training loss is the mean over one step in so many, the last ones."""

Losses = dict[str, list[list[float | None]]]
"""Losses by part of the data, rate and seed; None where a run failed."""


def make_train(
    problem: Problem, method: Method, sizes: Sizes
) -> Callable[..., Any]:
    """Return the training of one run. It is not compiled.

    `train(data, variables, batches, rate, tuned)` returns the variables after
    training, and the loss of each step's batch. Both rates decay to zero along
    a cosine; a weight decay, which is relative to the rate, is constant.
    """

    def optimizer(rate, tuned):
        schedule = optax.cosine_decay_schedule(rate, sizes.steps)
        if method.is_on_spheres:
            tuned = optax.cosine_decay_schedule(tuned, sizes.steps)
        return method.make(schedule, tuned, problem, sizes.growth)

    def train(data, variables, batches, rate, tuned):
        tx = optimizer(rate, tuned)
        loss_and_gradients = jax.value_and_grad(problem.loss, has_aux=True)

        def step(carry, batch):
            variables, state = carry
            params = variables["params"]
            (loss, statistics), gradients = loss_and_gradients(
                params, variables, data, batch
            )
            updates, state = tx.update(gradients, state, params)
            params = optax.apply_updates(params, updates)
            return ({"params": params, **statistics}, state), loss

        carry = variables, tx.init(variables["params"])
        (variables, _), losses = jax.lax.scan(step, carry, batches)
        return variables, losses

    return train


def begin(
    problem: Problem, name: str, sizes: Sizes, seeds: range
) -> tuple[Any, np.ndarray]:
    """Return the initial variables and the batches of each seed."""
    found = [problem.init(jax.random.key(seed)) for seed in seeds]
    variables = jax.tree.map(lambda *x: jnp.stack(x), *found)
    if name == MUP:
        variables = shrink_head(variables, sizes.growth)
    variables = scale_filters(variables, problem.groups, sizes.scale)
    return variables, problem.draw(seeds)


def train_all(
    problem: Problem,
    name: str,
    method: Method,
    sizes: Sizes,
    seeds: range,
    pairs: Sequence[tuple[float, float]],
) -> Losses:
    """Train with every pair of a rate and a tuned value, from every seed."""
    train = make_train(problem, method, sizes)
    # The pairs share batches, so that a first layer is one product.
    of_pairs = jax.vmap(train, (None, None, None, 0, 0))
    of_seeds = jax.jit(jax.vmap(of_pairs, (None, 0, 0, None, None)))
    start = begin(problem, name, sizes, seeds)
    data = jax.tree.map(jnp.asarray, problem.data)
    rates, tuned = jnp.asarray(pairs, jnp.float32).T
    variables, losses = of_seeds(data, *start, rates, tuned)
    tail = max(sizes.steps // TAIL, 1)
    found = {
        "train": np.asarray(losses[..., -tail:].mean(-1), float),
        **{k: _evaluate(problem, variables, x) for k, x in _held(problem)},
    }
    failed = has_failed(np.asarray(losses, float), tail)
    return {k: _listed(np.where(failed, np.nan, x)) for k, x in found.items()}


def _held(problem: Problem) -> Any:
    return jax.tree.map(jnp.asarray, problem.held_out).items()


def _evaluate(problem: Problem, variables: Any, data: Any) -> np.ndarray:
    """Return losses by seed and pair, one run after another."""
    seeds, pairs = jax.tree.leaves(variables)[0].shape[:2]
    losses = np.empty((seeds, pairs))
    for index in np.ndindex(seeds, pairs):
        one = jax.tree.map(lambda x, index=index: x[index], variables)
        losses[index] = problem.evaluate(one, data)
    return losses


def has_failed(losses: np.ndarray, tail: int) -> np.ndarray:
    """Tell which runs diverged, from the losses of steps on the last axis.

    A loss is non-finite, or the last ones are above the first.

    Examples:
        >>> has_failed(np.array([[3.0, 2.0], [3.0, 4.0], [3.0, np.nan]]), 1)
        array([False,  True,  True])
    """
    higher = losses[..., -tail:].mean(-1) > losses[..., 0]
    return higher | ~np.isfinite(losses).all(-1)


def _listed(losses: np.ndarray) -> list[list[float | None]]:
    """Return losses by pair and seed, None for those that failed."""
    return [
        [float(x) if np.isfinite(x) else None for x in row] for row in losses.T
    ]
