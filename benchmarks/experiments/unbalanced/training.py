"""Training from unbalanced weights, with the loss after every epoch."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from benchmarks import training
from benchmarks.data import Dataset


def scale_layers(variables: Any, factors: Sequence[float]) -> Any:
    """Multiply the kernel of each layer of `TwoLayers` by its factor."""
    params = dict(variables["params"])
    for index, factor in enumerate(factors):
        kernel = params[f"hidden_{index}"]["kernel"]
        params[f"hidden_{index}"] = {"kernel": factor * kernel}
    return {**variables, "params": params}


def make_curves(
    model: nn.Module, build: training.Build, dataset: Dataset, epochs: int
) -> Callable:
    """Compile the training of a model, as `benchmarks.training.make_train`.

    The function also returns the losses before training and after every epoch,
    of shape `(seeds, epochs + 1)`: of all training images as one batch, so that
    no running statistics enter.
    """
    groups = training.kernel_groups(model, dataset.train_images)
    whole = training.make_loss(model)

    def train(images, labels, variables, batches, rate, decay):
        schedule = optax.cosine_decay_schedule(rate, len(batches))
        optimizer = build(rate=schedule, decay=decay, groups=groups)
        step = training.make_step(model, optimizer, images, labels)

        def loss(variables):
            return whole(variables["params"], variables, images, labels)[0]

        def epoch(carry, batches):
            carry, _ = jax.lax.scan(step, carry, batches)
            return carry, loss(carry[0])

        carry = variables, optimizer.init(variables["params"])
        in_epochs = batches.reshape(epochs, -1, batches.shape[1])
        (after, _), losses = jax.lax.scan(epoch, carry, in_epochs)
        return after, jnp.append(loss(variables), losses)

    return training.for_seeds(train, dataset)
