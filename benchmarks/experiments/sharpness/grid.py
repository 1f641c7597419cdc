"""Training by SGD at one rate and batch size, its sharpness and test error."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import training
from benchmarks.data import Dataset
from benchmarks.experiments.full_batch import short
from benchmarks.experiments.tanh_mlp import TanhMLP, column_groups, make_loss
from psi_optax.landscape import eigenpairs, hessian

PRODUCTS = 24
"""Number of products of a Lanczos iteration."""

LABELS = {
    "none": "none",
    "sam": "SAM",
    "dropout": "dropout",
    "batch_norm": "BatchNorm",
}
"""Additions to the training of a plain network, with their names."""


class Sizes(NamedTuple):
    """Sizes of trainings.

    Attributes:
        widths: of the hidden layers.
        steps: of each training.
        seeds: number of trainings.
        radius: of the perturbations of SAM, a norm of all weights.
        dropout: share of units that are dropped.
    """

    widths: tuple[int, ...]
    steps: int
    seeds: int
    radius: float
    dropout: float


def make_training(
    dataset: Dataset, addition: str, sizes: Sizes
) -> Callable[[float, int], dict[str, Any]]:
    """Return a function of learning rate and batch size: a list by seed each.

    "plain" and "spherical" are top eigenvalues of the loss of all training
    images as one batch, in training mode without dropout, "residual" the larger
    one of their residuals.
    """
    model = TanhMLP(
        sizes.widths,
        dataset.num_classes,
        normalized=addition == "batch_norm",
        dropout=sizes.dropout if addition == "dropout" else 0.0,
        epsilon=0.0,
        momentum=0.9,
    )
    radius = sizes.radius if addition == "sam" else None
    train = _make_train(model, dataset, radius)
    measure = _make_measure(model.clone(dropout=0.0), dataset)
    evaluate = training.make_evaluate(model, dataset)
    images, seeds = dataset.train_images, range(sizes.seeds)

    def run(rate, batch_size):
        epochs = -(-sizes.steps // (len(images) // batch_size))
        variables, batches = training.begin(
            model, images, seeds, batch_size, epochs
        )
        batches = batches[:, : sizes.steps]
        keys = jax.vmap(jax.random.key)(np.asarray(seeds))
        variables = train(variables, batches, keys, rate)
        accuracy, _ = evaluate(variables)
        found = {"error": 1 - accuracy, **measure(variables)}
        return {name: short(np.asarray(x)) for name, x in found.items()}

    return run


def _make_train(model, dataset, radius):
    """Compile the training by SGD, or by SAM of a radius, for several seeds."""
    images = jnp.asarray(dataset.train_images)
    labels = jnp.asarray(dataset.train_labels)
    loss = make_loss(model)

    def train(variables, batches, key, rate):
        optimizer = optax.with_extra_args_support(optax.sgd(rate))
        if radius is not None:
            optimizer = _sam(optimizer, radius)

        def step(carry, batch):
            variables, state, key = carry
            key, drop = jax.random.split(key)
            args = variables, images[batch], labels[batch], drop
            gradient = jax.grad(loss, has_aux=True)
            params = variables["params"]
            updates, statistics = gradient(params, *args)
            updates, state = optimizer.update(
                updates,
                state,
                params,
                grad_fn=lambda w, _: gradient(w, *args)[0],
            )
            params = optax.apply_updates(params, updates)
            return ({"params": params, **statistics}, state, key), None

        carry = variables, optimizer.init(variables["params"]), key
        return jax.lax.scan(step, carry, batches)[0][0]

    return jax.jit(jax.vmap(train, (0, 0, 0, None)))


def _sam(optimizer, radius):
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(radius))
    return optax.contrib.sam(optimizer, ascent, opaque_mode=True)


def _make_measure(model, dataset):
    """Compile the loss of all training images, and its top eigenvalues."""
    images = jnp.asarray(dataset.train_images)
    labels = jnp.asarray(dataset.train_labels)
    whole = make_loss(model)

    def measure(variables):
        params = variables["params"]

        def loss(params):
            return whole(params, variables, images, labels)[0]

        def top(groups):
            curvature = hessian(loss, params, groups=groups)
            return eigenpairs(
                curvature,
                jax.random.key(0),
                num_matvecs=min(PRODUCTS, curvature.space.size),
            )

        plain, spherical = top(None), top(column_groups(params))
        return {
            "plain": plain.values[0],
            "spherical": spherical.values[0],
            "residual": jnp.maximum(plain.residuals, spherical.residuals)[0],
            "loss": loss(params),
        }

    return jax.jit(jax.vmap(measure))
