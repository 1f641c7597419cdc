"""Training that records norms, rotations and gradients of every filter."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import psi_optax
from benchmarks.data import Dataset
from benchmarks.training import (
    Build,
    for_seeds,
    kernel_groups,
    make_loss,
    make_update,
)

__all__ = ["Record", "make_watched"]


class Record(NamedTuple):
    """Records of every step.

    Attributes:
        loss: of the batch, of shape `(seeds, steps)`.
        norm: by layer, of each filter before the step, of shape
            `(seeds, steps, filters)`.
        gradient: the norm of the gradient in direction space, likewise.
        rotation: in radians, likewise.
    """

    loss: Any
    norm: dict[str, Any]
    gradient: dict[str, Any]
    rotation: dict[str, Any]


def make_watched(model: nn.Module, build: Build, dataset: Dataset) -> Callable:
    """Compile the training of a model at a constant rate.

    It is a function `train(variables, batches, rate, decay)` that returns a
    `Record`; see `benchmarks.training.make_train`.
    """
    groups = kernel_groups(model, dataset.train_images)

    def train(images, labels, variables, batches, rate, decay):
        optimizer = optax.chain(
            _watch(groups), build(rate=rate, decay=decay, groups=groups)
        )
        update = make_update(make_loss(model), optimizer)

        def look(carry, batch):
            following, loss = update(carry, images[batch], labels[batch])
            before, after = carry[0]["params"], following[0]["params"]
            return following, Record(
                loss,
                psi_optax.group_norms(before, groups),
                following[1][0],
                psi_optax.rotation(before, after, groups),
            )

        carry = variables, optimizer.init(variables["params"])
        return jax.lax.scan(look, carry, batches)[1]

    compiled = for_seeds(train, dataset)

    def watched(*arguments: Any) -> Record:
        loss, *others = compiled(*arguments)
        return Record(np.asarray(loss, np.float64), *map(_by_layer, others))

    return watched


def _watch(groups: Any) -> optax.GradientTransformation:
    """Keep |w| |g| of the last step, and pass gradients through."""

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
    """Return the arrays of kernels, by the names of their layers."""
    return {
        layer: np.asarray(leaves["kernel"], np.float64)
        for layer, leaves in tree.items()
        if isinstance(leaves, dict) and leaves.get("kernel") is not None
    }
