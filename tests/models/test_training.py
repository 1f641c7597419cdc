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


def train(name, loss, params, rest):
    """Return the loss before each step, and the rest after the last one."""
    optimizer = psi_sgd(RATE, found(name))

    @jax.jit
    def step(params, rest, state):
        (value, rest), gradients = jax.value_and_grad(loss, has_aux=True)(
            params, rest
        )
        updates, state = optimizer.update(gradients, state, params)
        return value, (optax.apply_updates(params, updates), rest, state)

    carry, losses = (params, rest, optimizer.init(params)), []
    for _ in range(STEPS):
        value, carry = step(*carry)
        losses.append(value)
    return np.array(losses), carry[1]


def linen_losses(name):
    model, variables = CASES[name].linen(), variables_of(name)

    def loss(params, statistics):
        variables = {"params": params, "batch_stats": statistics}
        logits, statistics = apply(model, variables)
        return cross_entropy(logits), statistics

    statistics = variables.get("batch_stats", {})
    return train(name, loss, variables["params"], statistics)


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

    def loss(params, rest):
        model = nnx.merge(graph, params, rest, copy=True)
        value = cross_entropy(model(IMAGES))
        return value, nnx.split(model, nnx.Param, ...)[2]

    losses, _ = train("CNN", loss, params, rest)
    assert (np.diff(losses) < 0).all()
    np.testing.assert_allclose(losses, linen_losses("CNN")[0], rtol=1e-5)
