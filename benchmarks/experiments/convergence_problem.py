"""A loss of all images at once, in double precision, and descent on it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import psi_optax
from benchmarks.data import Dataset
from benchmarks.experiments.unbalanced_network import TwoLayers

__all__ = ["Path", "Problem", "make_descent", "make_problem", "norms"]


class Problem(NamedTuple):
    """A scale-invariant loss.

    Attributes:
        loss: of a vector of all parameters.
        start: that vector at first, float64.
        ids: which scale group each of its elements belongs to, from 0; -1
            where it has none. An array with an element for each group and,
            last, one for the rest, is spread over all parameters by `[ids]`.
        unravel: makes the tree of the parameters from the vector.
        groups: the scale groups of that tree.
    """

    loss: Callable[[jax.Array], jax.Array]
    start: jax.Array
    ids: np.ndarray
    unravel: Callable[[jax.Array], Any]
    groups: Any


def make_problem(dataset: Dataset, width: int, seed: int = 0) -> Problem:
    """The training loss of `TwoLayers` on all images of a data set.

    Its activation is tanh, since the theorems ask for second derivatives, and
    the epsilon of batch normalization 0. Call it under `jax.enable_x64()`.

    Args:
        dataset: the training part is used.
        width: number of hidden units.
        seed: of the initial weights.

    Returns:
        The problem; groups are the columns of both kernels.
    """
    model = TwoLayers(
        width, dataset.num_classes, epsilon=0.0, activation=jnp.tanh
    )
    images = jnp.asarray(dataset.train_images, jnp.float64)
    labels = jnp.asarray(dataset.train_labels)
    variables = model.init(jax.random.key(seed), images[:2], train=False)
    params = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float64), variables["params"]
    )
    start, unravel = ravel_pytree(params)
    groups = psi_optax.output_channels(params, where="hidden_./kernel")
    statistics = variables["batch_stats"]

    def loss(x):
        logits, _ = model.apply(
            {"params": unravel(x), "batch_stats": statistics},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        return optax.softmax_cross_entropy_with_integer_labels(
            logits, labels
        ).mean()

    return Problem(loss, start, _number(params), unravel, groups)


def _number(params: Any) -> np.ndarray:
    """The `ids` of a problem: numbers of the kernels' columns."""
    ids = jax.tree.map(lambda leaf: np.full(leaf.shape, -1), params)
    groups = 0
    for name in ("hidden_0", "hidden_1"):
        rows, columns = params[name]["kernel"].shape
        numbers = groups + np.arange(columns)
        ids[name]["kernel"] = np.tile(numbers, (rows, 1))
        groups += columns
    return np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(ids)])


def norms(x: jax.Array, ids: np.ndarray) -> jax.Array:
    """The norm of every group, and 1 for what has none.

    Examples:
        >>> norms(jnp.array([3.0, 4.0, 7.0]), np.array([0, 0, -1])).tolist()
        [5.0, 1.0]
    """
    groups = ids.max() + 1
    squares = jax.ops.segment_sum(
        jnp.where(ids < 0, 0, x * x), jnp.maximum(ids, 0), groups
    )
    return jnp.append(jnp.sqrt(squares), jnp.ones(1, x.dtype))


class Path(NamedTuple):
    """What descent passes, before and after every step.

    Attributes:
        points: the parameters, of shape `(steps + 1, parameters)`.
        loss: of shape `(steps + 1,)`.
        direction: the squared norm of the gradient with respect to directions
            and ordinary parameters.
        euclidean: that with respect to all parameters.
        promised: half of what a step would lower the loss by if it were
            linear: the least that it falls by where no curvature times the
            step's rate exceeds 1.
    """

    points: Any
    loss: Any
    direction: Any
    euclidean: Any
    promised: Any


def make_descent(problem: Problem, psi: bool, steps: int) -> Callable:
    """Compile gradient descent, with a rate for each group.

    Args:
        problem: the loss.
        psi: whether on the PSI manifold.
        steps: how many.

    Returns:
        A function of a vector of parameters and of rates, one for each group
        and one for the rest, that returns a `Path`.
    """

    def descend(start, rates):
        rate = rates[problem.ids]
        tx = _optimizer(problem, psi, problem.unravel(rate))

        def look(x, gradient, loss):
            scaled = norms(x, problem.ids)[problem.ids] * gradient
            felt = scaled if psi else gradient
            return Path(
                x,
                loss,
                jnp.sum(scaled**2),
                jnp.sum(gradient**2),
                jnp.sum(rate * felt**2) / 2,
            )

        def step(carry, _):
            x, state = carry
            loss, gradient = jax.value_and_grad(problem.loss)(x)
            params = problem.unravel(x)
            updates, state = tx.update(problem.unravel(gradient), state, params)
            new, _ = ravel_pytree(optax.apply_updates(params, updates))
            return (new, state), look(x, gradient, loss)

        carry = start, tx.init(problem.unravel(start))
        return jax.lax.scan(step, carry, length=steps + 1)[1]

    return jax.jit(descend)


def _optimizer(
    problem: Problem, psi: bool, rates: Any
) -> optax.GradientTransformation:
    """PSI-GD or gradient descent, by a tree of rates."""
    descent = optax.stateless(
        lambda updates, _: jax.tree.map(lambda u, r: -r * u, updates, rates)
    )
    return psi_optax.psi(descent, problem.groups) if psi else descent
