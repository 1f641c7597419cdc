"""Weight normalization in front of batch normalization, in float64.

Batch normalization makes the loss a function of the directions of filters
alone. Weight normalization keeps these, and so the loss and its gradients.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

import psi_optax
from benchmarks import training
from benchmarks.data import Dataset
from benchmarks.experiments.noisy_data import first
from benchmarks.experiments.normalizations.network import Network
from psi_optax import reparametrize
from psi_optax._compat import enable_x64

IMAGES = 128
STEPS = 30

Loss = Callable[[Any], jax.Array]


def differences(dataset: Dataset) -> dict[str, float]:
    """Train by SGD with momentum, with and without weight normalization.

    Returns:
        Largest differences from training without, by subject: of weights with
        fixed gains, of weights with learned ones, and of these gains from their
        start. Two are controls, which are not small: of weights with centered
        filters, and with fixed gains but no batch normalization.
    """
    with enable_x64(True):
        normed, alone = (
            _loss(Network((16,), epsilon=1e-20, batch_norm=x), dataset)
            for x in (True, False)
        )
        return _differences(normed, alone, _start(dataset))


def _differences(normed: Loss, alone: Loss, start: Any) -> dict[str, float]:
    groups = psi_optax.output_channels(start, where="hidden_.*/kernel")
    # Without batch normalization the control begins as the same function.
    start = reparametrize.normalize(start, groups)
    unit, centered = (
        partial(function, groups=groups)
        for function in (reparametrize.unit, reparametrize.centered)
    )
    learned = reparametrize.weight_normalization(groups)
    raw = learned.init(start)
    expected = _train(normed, start)
    trained = _train(lambda raw: normed(learned.apply(raw)), raw)
    return {
        "fixed gains": _distance(
            _train(lambda x: normed(unit(x)), start), expected
        ),
        "learned gains": _distance(trained.weights, expected),
        "gains": _distance(trained.gains, raw.gains),
        "centered": _distance(
            _train(lambda x: normed(centered(x)), start), expected
        ),
        "without BatchNorm": _distance(
            _train(lambda x: alone(unit(x)), start), _train(alone, start)
        ),
    }


def _loss(model: Network, dataset: Dataset) -> Loss:
    """Return the training loss of the first images."""
    few = first(dataset, IMAGES)
    images = jnp.asarray(few.train_images, float)
    labels = jnp.asarray(few.train_labels)
    loss = training.make_loss(model)
    return lambda params: loss(params, {}, images, labels)[0]


def _start(dataset: Dataset) -> Any:
    """Return initial params, which both networks share."""
    images = jnp.asarray(dataset.train_images[:1], float)
    return Network((16,)).init(jax.random.key(0), images, False)["params"]


def _train(loss: Loss, params: Any) -> Any:
    """Return params after training on all images at once."""
    optimizer = optax.sgd(0.1, 0.9)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def run(params: Any) -> Any:
        carry = params, optimizer.init(params)
        return jax.lax.scan(step, carry, length=STEPS)[0][0]

    return run(params)


def _distance(a: Any, b: Any) -> float:
    """Return the largest difference of two trees."""
    largest = jax.tree.map(lambda x, y: jnp.abs(x - y).max(), a, b)
    return float(jax.tree.reduce(jnp.maximum, largest))
