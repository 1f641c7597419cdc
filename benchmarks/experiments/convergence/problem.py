"""The loss of all images at once, in double precision, and its scale groups."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
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
    model = TwoLayers(
        width, dataset.num_classes, epsilon=0.0, activation=jnp.tanh
    )
    images = jnp.asarray(dataset.train_images, jnp.float64)
    labels = jnp.asarray(dataset.train_labels)
    variables = model.init(jax.random.key(0), images[:2], train=False)
    params = jax.tree.map(lambda x: x.astype(jnp.float64), variables["params"])
    start, unravel = ravel_pytree(params)
    groups = psi_optax.output_channels(params, where="hidden_./kernel")
    whole = make_loss(model)

    def loss(x):
        return whole(unravel(x), variables, images, labels)[0]

    return Problem(loss, start, _ids(params), unravel, groups)


def _ids(params: Any) -> np.ndarray:
    """Number the columns of both kernels."""
    ids = jax.tree.map(lambda leaf: np.full(leaf.shape, -1), params)
    first, second = (ids[f"hidden_{index}"]["kernel"] for index in (0, 1))
    first[:] = np.arange(first.shape[1])
    second[:] = first.shape[1] + np.arange(second.shape[1])
    return np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(ids)])


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
