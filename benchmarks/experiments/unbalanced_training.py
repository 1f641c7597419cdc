"""Training from unbalanced weights, with the loss after every epoch."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from benchmarks.data import Dataset
from benchmarks.training import Build, kernel_groups, make_step

__all__ = ["first", "in_epochs", "make_curves", "scale_layers"]


def first(dataset: Dataset, examples: int) -> Dataset:
    """A data set with only so many training examples, the first ones."""
    return dataset._replace(
        train_images=dataset.train_images[:examples],
        train_labels=dataset.train_labels[:examples],
    )


def scale_layers(variables: Any, factors: Sequence[float]) -> Any:
    """Multiply the kernel of each layer.

    Args:
        variables: those of `TwoLayers`.
        factors: one for each layer.

    Returns:
        Other variables; all but the kernels are the same arrays.
    """
    params = dict(variables["params"])
    for index, factor in enumerate(factors):
        layer = params[f"hidden_{index}"]
        params[f"hidden_{index}"] = {"kernel": factor * layer["kernel"]}
    return {**variables, "params": params}


def make_curves(model: nn.Module, build: Build, dataset: Dataset) -> Callable:
    """Compile the training of a model, which looks at the loss on its way.

    As `benchmarks.training.make_train`: the learning rate falls to zero along
    a cosine.

    Args:
        model: a Linen model that is called as those of `psi_optax.models`.
        build: makes the optimizer from `rate`, `decay` and `groups`.
        dataset: the training part is used.

    Returns:
        A function `train(variables, batches, rate, decay)` of batches of shape
        `(seeds, epochs, steps, batch_size)`, that returns the variables after
        training, and the losses before it and after every epoch, of shape
        `(seeds, epochs + 1)`: of all training images as one batch, in training
        mode, so that no running statistics come in.
    """
    images = jnp.asarray(dataset.train_images)
    labels = jnp.asarray(dataset.train_labels)
    groups = kernel_groups(model, images)

    def train(images, labels, variables, batches, rate, decay):
        steps = batches.shape[0] * batches.shape[1]
        schedule = optax.cosine_decay_schedule(rate, steps)
        optimizer = build(rate=schedule, decay=decay, groups=groups)
        step = make_step(model, optimizer, images, labels)

        def loss(variables):
            logits, _ = model.apply(
                variables, images, train=True, mutable=["batch_stats"]
            )
            return optax.softmax_cross_entropy_with_integer_labels(
                logits, labels
            ).mean()

        def epoch(carry, batches):
            carry, _ = jax.lax.scan(
                lambda carry, batch: (step(carry, batch), None), carry, batches
            )
            return carry, loss(carry[0])

        carry = variables, optimizer.init(variables["params"])
        (after, _), losses = jax.lax.scan(epoch, carry, batches)
        return after, jnp.append(loss(variables), losses)

    # The data are arguments: as constants they would be compiled in.
    for_seeds = jax.vmap(train, in_axes=(None, None, 0, 0, None, None))
    compiled = jax.jit(for_seeds)
    return lambda *arguments: compiled(images, labels, *arguments)


def in_epochs(batches: np.ndarray, epochs: int) -> np.ndarray:
    """Batches of `make_batches`, with an axis for the epochs."""
    seeds, _, size = batches.shape
    return batches.reshape(seeds, epochs, -1, size)
