"""Training that writes down norms, rotations and gradients of every filter."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import psi_optax
from benchmarks.data import Dataset
from benchmarks.training import Build, kernel_groups, make_loss, make_update

__all__ = ["Record", "make_watched"]


class Record(NamedTuple):
    """What was seen at every step.

    Attributes:
        loss: of the batch, of shape `(seeds, steps)`.
        norm: by layer, of each filter before the step, of shape
            `(seeds, steps, filters)`.
        gradient: of the same form, the norm of the gradient in direction
            space.
        rotation: of the same form, in radians.
    """

    loss: Any
    norm: dict[str, Any]
    gradient: dict[str, Any]
    rotation: dict[str, Any]


def make_watched(model: nn.Module, build: Build, dataset: Dataset) -> Callable:
    """Compile the training of a model at a constant rate.

    Args:
        model: a Linen model of `psi_optax.models`.
        build: makes the optimizer from `rate`, `decay` and `groups`.
        dataset: the training part is used.

    Returns:
        A function `train(variables, batches, rate, decay)` that returns a
        `Record`. It takes variables and batches as
        `benchmarks.training.initialize` and `make_batches` return them.
    """
    images = jnp.asarray(dataset.train_images)
    labels = jnp.asarray(dataset.train_labels)
    groups = kernel_groups(model, images)

    def train(images, labels, variables, batches, rate, decay):
        optimizer = optax.chain(
            _watch(groups), build(rate=rate, decay=decay, groups=groups)
        )
        update = make_update(make_loss(model), optimizer)

        def look(carry, batch):
            following, loss = update(carry, images[batch], labels[batch])
            before, after = carry[0]["params"], following[0]["params"]
            seen = Record(
                loss,
                psi_optax.group_norms(before, groups),
                following[1][0],
                psi_optax.rotation(before, after, groups),
            )
            return following, seen

        carry = variables, optimizer.init(variables["params"])
        return jax.lax.scan(look, carry, batches)[1]

    # The data are arguments: as constants they would be compiled in.
    for_seeds = jax.vmap(train, in_axes=(None, None, 0, 0, None, None))
    compiled = jax.jit(for_seeds)

    def watched(*arguments: Any) -> Record:
        seen = compiled(images, labels, *arguments)
        return Record(
            np.asarray(seen.loss, np.float64),
            *(_by_layer(part) for part in (seen[1], seen[2], seen[3])),
        )

    return watched


def _watch(groups: Any) -> optax.GradientTransformation:
    """Keeps |w| |g| of the last step, and passes gradients through."""

    def product(params, gradients):
        return jax.tree.map(
            jnp.multiply,
            psi_optax.group_norms(params, groups),
            psi_optax.group_norms(gradients, groups),
        )

    def update_fn(updates, state, params=None):
        del state
        return updates, product(params, updates)

    return optax.GradientTransformation(
        lambda params: product(params, params), update_fn
    )


def _by_layer(tree: dict[str, Any]) -> dict[str, np.ndarray]:
    """The kernels' arrays, by the names of their layers."""
    return {
        layer: np.asarray(leaves["kernel"], np.float64)
        for layer, leaves in tree.items()
        if isinstance(leaves, dict) and leaves.get("kernel") is not None
    }
