"""A scale-invariant loss of all images, and its full-batch descent."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import psi_optax
from benchmarks.data import Dataset
from benchmarks.experiments.two_layers import TwoLayers
from benchmarks.training import make_loss


class Problem(NamedTuple):
    """A scale-invariant loss.

    Attributes:
        loss: function of a vector of all parameters.
        start: the initial vector, float64.
        ids: number of each element's scale group, -1 for ordinary elements: an
            index into values of all groups, and a last one of the rest.
        unravel: returns the tree of parameters of a vector.
        groups: scale groups of that tree.
    """

    loss: Callable[[jax.Array], jax.Array]
    start: jax.Array
    ids: np.ndarray
    unravel: Callable[[jax.Array], Any]
    groups: Any


def make_problem(dataset: Dataset, width: int) -> Problem:
    """Return the training loss of `TwoLayers`; call it in double precision.

    The activation is tanh, since the theorems ask for second derivatives, and
    batch normalization has no epsilon. Columns of both kernels are groups.
    """
    options: Any = {"epsilon": 0.0, "activation": jnp.tanh}
    model = TwoLayers(width, dataset.num_classes, **options)
    images = jnp.asarray(dataset.train_images, jnp.float64)
    labels = jnp.asarray(dataset.train_labels)
    variables = model.init(jax.random.key(0), images[:2], train=False)
    params = jax.tree.map(lambda x: x.astype(jnp.float64), variables["params"])
    start, unravel = ravel_pytree(params)
    groups = psi_optax.output_channels(params, where="hidden_./kernel")
    # Number the columns of both kernels.
    ids = jax.tree.map(lambda leaf: np.full(leaf.shape, -1), params)
    first, second = (ids[f"hidden_{index}"]["kernel"] for index in (0, 1))
    first[:] = np.arange(width)
    second[:] = width + np.arange(dataset.num_classes)
    flat = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(ids)])
    whole = make_loss(model)

    def loss(x):
        return whole(unravel(x), variables, images, labels)[0]

    return Problem(loss, start, flat, unravel, groups)


def norms(x: jax.Array, ids: np.ndarray) -> jax.Array:
    """Return the norm of each group, and a last 1 for ordinary elements."""
    squares = jnp.where(ids < 0, 0, x * x)
    sums = jax.ops.segment_sum(squares, jnp.maximum(ids, 0), ids.max() + 1)
    return jnp.append(jnp.sqrt(sums), jnp.ones(1, x.dtype))


def normalized(problem: Problem, x: jax.Array) -> jax.Array:
    """Return the parameters with groups of norm 1."""
    return x / norms(x, problem.ids)[problem.ids]


def scaled(problem: Problem, scale: float) -> jax.Array:
    """Return the initial parameters, with kernels multiplied by the scale."""
    return jnp.where(problem.ids < 0, 1.0, scale) * problem.start


def make_descent(problem: Problem, psi: bool, steps: int) -> Callable:
    """Compile descent, on the PSI manifold or off it.

    It takes a vector of parameters, and a rate for each group and the rest. It
    returns quantities before the first step and after each one: "points",
    "loss", the squared gradients by directions and ordinary parameters,
    "direction", and by parameters, "euclidean", and "promised": half of the
    decrease of a linear loss, a lower bound of the decrease where curvature
    times rate is at most 1.
    """
    ids, unravel = problem.ids, problem.unravel
    loss_and_gradient = jax.value_and_grad(problem.loss)

    def descend(start, rates):
        rate = rates[ids]
        steps_of = unravel(-rate)
        optimizer = optax.stateless(
            lambda u, _: jax.tree.map(jnp.multiply, steps_of, u)
        )
        if psi:
            optimizer = psi_optax.psi(optimizer, problem.groups)

        def step(carry, _):
            x, state = carry
            loss, gradient = loss_and_gradient(x)
            updates, state = optimizer.update(
                unravel(gradient), state, unravel(x)
            )
            after, _ = ravel_pytree(optax.apply_updates(unravel(x), updates))
            along = norms(x, ids)[ids] * gradient
            bounded = along if psi else gradient
            seen = {
                "points": x,
                "loss": loss,
                "direction": jnp.sum(along**2),
                "euclidean": jnp.sum(gradient**2),
                "promised": jnp.sum(rate * bounded**2) / 2,
            }
            return (after, state), seen

        carry = start, optimizer.init(unravel(start))
        return jax.lax.scan(step, carry, length=steps + 1)[1]

    compiled = jax.jit(descend)
    return lambda *given: jax.tree.map(np.asarray, compiled(*given))
