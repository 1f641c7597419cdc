"""The averages over learners, in a chain with any optimizer."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.optimizers import OPTIMIZERS
from benchmarks.train import learners
from psi_optax.groups import Groups

AXIS = learners.AXIS

AVERAGES = {
    "gradients": "gradients of all",
    "all": "weights of all",
    "ring": "weights of neighbours",
}
"""The averages that are compared, with their labels."""

LABELS = {"sgd": "SGD", "psi_sgd": "psi_sgd"}
"""The optimizers of each learner, with their labels."""


def make(
    name: str, averaging: str, rate: Any, groups: Groups
) -> optax.GradientTransformation:
    """Make the optimizer of a learner, for use along `AXIS`."""
    optimizer = OPTIMIZERS[name].make(rate, groups)
    if averaging == "gradients":
        return optax.chain(_average_gradients(), optimizer)
    # SGD keeps no norms.
    kept = groups if name == "psi_sgd" else None
    return learners.chain(optimizer, averaging, kept)


def _average_gradients() -> optax.GradientTransformation:
    return optax.stateless(lambda gradients, _: jax.lax.pmean(gradients, AXIS))


def first(tree: Any) -> Any:
    """Return the arrays of the first learner, along `AXIS`."""
    return jax.tree.map(lambda x: jax.lax.all_gather(x, AXIS)[0], tree)


def consensus(params: Any) -> tuple[Any, jax.Array]:
    """Return the mean of the learners, and their distance from it.

    The distance is the root mean square over learners, relative to the norm of
    the mean. It is exactly zero where all learners are equal.

    Examples:
        >>> mean, distance = jax.vmap(consensus, axis_name=AXIS, out_axes=None)(
        ...     {"kernel": jnp.array([[3.0], [5.0]])}
        ... )
        >>> mean["kernel"].tolist(), distance.tolist()
        ([4.0], 0.25)
    """
    # A mean of equal numbers would be rounded; that of zeros is not.
    start = first(params)
    apart = jax.tree.map(lambda x, y: x - y, params, start)
    shift = jax.lax.pmean(apart, AXIS)
    mean = jax.tree.map(lambda x, y: x + y, start, shift)
    apart = jax.tree.map(lambda x, y: x - y, apart, shift)
    square = jax.lax.pmean(optax.tree.norm(apart, squared=True), AXIS)
    return mean, jnp.sqrt(square) / optax.tree.norm(mean)
