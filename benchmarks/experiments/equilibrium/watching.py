"""Training that records norms, rotations and gradients of every filter."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

import psi_optax
from benchmarks.data import Dataset
from benchmarks.training import Build, for_seeds, kernel_groups, make_loss
from psi_optax.models import linen

__all__ = ["make_watched"]


def make_watched(model: linen.MLP, build: Build, dataset: Dataset) -> Callable:
    """Compile training as `benchmarks.training.make_train`, at a constant rate.

    It is a function `train(variables, batches, rate, decay)` that returns
    "loss", of shape `(steps, seeds)`, and under "layers" for each layer its
    "size", the number of inputs, and arrays of shape `(steps, filters of all
    seeds)`: "norm" before the step, "gradient", the norm of the gradient in
    direction space, and "rotation", in radians.
    """
    groups = kernel_groups(model, dataset.train_images)
    layers = [f"hidden_{index}" for index in range(len(model.widths))]
    loss_and_gradient = jax.value_and_grad(make_loss(model), has_aux=True)

    def look(before, gradients, after):
        norms, slopes, angles = (
            psi_optax.group_norms(before, groups),
            psi_optax.group_norms(gradients, groups),
            psi_optax.rotation(before, after, groups),
        )
        for layer in layers:
            norm, slope, angle = (
                x[layer]["kernel"] for x in (norms, slopes, angles)
            )
            yield (
                layer,
                {"norm": norm, "gradient": norm * slope, "rotation": angle},
            )

    def train(images, labels, variables, batches, rate, decay):
        optimizer = build(rate=rate, decay=decay, groups=groups)

        def step(carry, batch):
            variables, state = carry
            before = variables["params"]
            (loss, statistics), gradients = loss_and_gradient(
                before, variables, images[batch], labels[batch]
            )
            updates, state = optimizer.update(gradients, state, before)
            after = optax.apply_updates(before, updates)
            seen = {
                "loss": loss,
                "layers": dict(look(before, gradients, after)),
            }
            return ({"params": after, **statistics}, state), seen

        carry = variables, optimizer.init(variables["params"])
        return jax.lax.scan(step, carry, batches)[1]

    compiled = for_seeds(train, dataset)

    def watched(variables: Any, *arguments: Any) -> dict[str, Any]:
        record = jax.tree.map(_columns, compiled(variables, *arguments))
        for layer, seen in record["layers"].items():
            seen["size"] = variables["params"][layer]["kernel"].shape[1]
        return record

    return watched


def _columns(values: jax.Array) -> np.ndarray:
    """Return values of `(seeds, steps, ...)` as `(steps, all others)`."""
    rows = np.moveaxis(np.asarray(values, np.float64), 0, 1)
    return rows.reshape(len(rows), -1)
