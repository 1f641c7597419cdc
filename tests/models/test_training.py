"""Training by compiled steps, on one small batch."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from psi_optax import psi_sgd

from .twins import (
    BATCH_NORMALIZED,
    CASES,
    IMAGES,
    apply,
    cross_entropy,
    found,
    load_linen,
    variables_of,
)

STEPS = 3
RATE = 0.01


def linen_losses(name):
    """Return the loss before each step, and the last statistics."""
    model, variables = CASES[name].linen(), variables_of(name)
    optimizer = psi_sgd(RATE, found(name))

    def loss(params, statistics):
        variables = {"params": params, "batch_stats": statistics}
        logits, statistics = apply(model, variables)
        return cross_entropy(logits), statistics

    @jax.jit
    def step(params, statistics, state):
        (value, statistics), gradients = jax.value_and_grad(loss, has_aux=True)(
            params, statistics
        )
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        return value, (params, statistics, state)

    params = variables["params"]
    carry = params, variables.get("batch_stats", {}), optimizer.init(params)
    losses = []
    for _ in range(STEPS):
        value, carry = step(*carry)
        losses.append(value)
    return np.array(losses), carry[1]


@pytest.mark.parametrize("name", ["PreActResNet", "ViT"])
def test_training_lowers_the_loss_and_moves_the_statistics(name):
    losses, statistics = linen_losses(name)
    assert (np.diff(losses) < 0).all()
    for before, after in zip(
        jax.tree.leaves(variables_of(name).get("batch_stats", {})),
        jax.tree.leaves(statistics),
        strict=True,
    ):
        assert (before != after).all()
    assert bool(statistics) == (name in BATCH_NORMALIZED)


def test_nnx_trains_to_the_same_losses():
    model = CASES["CNN"].nnx()
    load_linen(model, variables_of("CNN"))
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    optimizer = psi_sgd(RATE, found("CNN"))

    def loss(params, rest):
        model = nnx.merge(graph, params, rest, copy=True)
        value = cross_entropy(model(IMAGES))
        return value, nnx.split(model, nnx.Param, ...)[2]

    @jax.jit
    def step(params, rest, state):
        (value, rest), gradients = jax.value_and_grad(loss, has_aux=True)(
            params, rest
        )
        updates, state = optimizer.update(gradients, state, params)
        return value, (optax.apply_updates(params, updates), rest, state)

    carry = params, rest, optimizer.init(params)
    losses = []
    for _ in range(STEPS):
        value, carry = step(*carry)
        losses.append(value)
    assert (np.diff(losses) < 0).all()
    np.testing.assert_allclose(losses, linen_losses("CNN")[0], rtol=1e-5)
