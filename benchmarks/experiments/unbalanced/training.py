"""Training from unbalanced weights, with the loss after every epoch."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from benchmarks.data import Dataset
from benchmarks.training import (
    Build,
    for_seeds,
    kernel_groups,
    make_loss,
    make_step,
)


def scale_layers(variables: Any, factors: Sequence[float]) -> Any:
    """Multiply the kernel of each layer of `TwoLayers` by its factor."""
    params = dict(variables["params"])
    for index, factor in enumerate(factors):
        layer = params[f"hidden_{index}"]
        params[f"hidden_{index}"] = {"kernel": factor * layer["kernel"]}
    return {**variables, "params": params}


def make_curves(
    model: nn.Module, build: Build, dataset: Dataset, epochs: int
) -> Callable:
    """Compile the training of a model, as `benchmarks.training.make_train`.

    It is a function `train(variables, batches, rate, decay)` that returns the
    variables, and the losses before training and after every epoch, of shape
    `(seeds, epochs + 1)`: of all training images as one batch, in training
    mode, so that no running statistics enter.
    """
    groups = kernel_groups(model, dataset.train_images)

    def train(images, labels, variables, batches, rate, decay):
        schedule = optax.cosine_decay_schedule(rate, len(batches))
        optimizer = build(rate=schedule, decay=decay, groups=groups)
        step = make_step(model, optimizer, images, labels)

        def loss(variables):
            return make_loss(model)(
                variables["params"], variables, images, labels
            )[0]

        def epoch(carry, batches):
            carry, _ = jax.lax.scan(
                lambda carry, batch: (step(carry, batch), None), carry, batches
            )
            return carry, loss(carry[0])

        carry = variables, optimizer.init(variables["params"])
        in_epochs = batches.reshape(epochs, -1, batches.shape[1])
        (after, _), losses = jax.lax.scan(epoch, carry, in_epochs)
        return after, jnp.append(loss(variables), losses)

    return for_seeds(train, dataset)
