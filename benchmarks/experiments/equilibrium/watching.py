"""Training that records norms, rotations and gradients of every filter."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import psi_optax
from benchmarks.data import Dataset
from benchmarks.training import Build, for_seeds, kernel_groups, make_training
from psi_optax.models import linen


def make_watched(model: linen.MLP, build: Build, dataset: Dataset) -> Callable:
    """Compile training as `benchmarks.training.make_train`, at a constant rate.

    `train(variables, batches, rate, decay)` returns "loss", of shape `(steps,
    seeds)`, and under "layers" for each layer its "size", the number of inputs,
    and arrays of shape `(steps, filters of all seeds)`: "norm" before the step,
    "gradient", the norm of the gradient in direction space, and "rotation", in
    radians.
    """
    groups = kernel_groups(model, dataset.train_images)
    layers = [f"hidden_{index}" for index in range(len(model.widths))]

    def look(before, after, gradients, loss):
        norm = psi_optax.group_norms(before, groups)
        slope = psi_optax.group_norms(gradients, groups)
        seen = {
            "norm": norm,
            "gradient": jax.tree.map(jnp.multiply, norm, slope),
            "rotation": psi_optax.rotation(before, after, groups),
        }
        by_layer = {
            layer: {kind: x[layer]["kernel"] for kind, x in seen.items()}
            for layer in layers
        }
        return {"loss": loss, "layers": by_layer}

    train = make_training(model, build, groups, lambda rate, _: rate, look)
    compiled = for_seeds(train, dataset)

    def watched(variables: Any, *arguments: Any) -> dict[str, Any]:
        record = jax.tree.map(_columns, compiled(variables, *arguments)[1])
        for layer, seen in record["layers"].items():
            seen["size"] = variables["params"][layer]["kernel"].shape[1]
        return record

    return watched


def _columns(values: jax.Array) -> np.ndarray:
    """Return values of `(seeds, steps, ...)` as `(steps, all others)`."""
    rows = np.moveaxis(np.asarray(values, np.float64), 0, 1)
    return rows.reshape(len(rows), -1)
