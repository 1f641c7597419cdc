"""Training that records norms, rotations and gradients of every filter."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import psi_optax
from benchmarks.data import Dataset
from benchmarks.training import Build, for_seeds, kernel_groups, make_loss
from psi_optax.models import linen


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
                "layers": _look(groups, layers, before, gradients, after),
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


def _look(
    groups: Any, layers: list[str], before: Any, gradients: Any, after: Any
) -> dict[str, Any]:
    """Return the record of a step, by layer."""
    norm = psi_optax.group_norms(before, groups)
    slope = psi_optax.group_norms(gradients, groups)
    seen = {
        "norm": norm,
        "gradient": jax.tree.map(jnp.multiply, norm, slope),
        "rotation": psi_optax.rotation(before, after, groups),
    }
    return {
        layer: {kind: x[layer]["kernel"] for kind, x in seen.items()}
        for layer in layers
    }


def _columns(values: jax.Array) -> np.ndarray:
    """Return values of `(seeds, steps, ...)` as `(steps, all others)`."""
    rows = np.moveaxis(np.asarray(values, np.float64), 0, 1)
    return rows.reshape(len(rows), -1)
