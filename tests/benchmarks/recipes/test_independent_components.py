"""The independent-component layer: correlations, and groups in front."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import psi_optax
from benchmarks.recipes.independent_components import IndependentComponents
from psi_optax import ScaleGroup

pytestmark = pytest.mark.usefixtures("optax_promotion")

ROWS, CORRELATION, MEAN = 200_000, 0.7, 2.0


def inputs():
    x = np.random.RandomState(0).randn(ROWS, 2)
    second = CORRELATION * x[:, 0] + (1 - CORRELATION**2) ** 0.5 * x[:, 1]
    return jnp.asarray(np.stack([x[:, 0], second], 1) + MEAN, jnp.float32)


def correlation(layer, x):
    variables = layer.init(jax.random.key(0), x, train=False)
    y, _ = layer.apply(
        variables,
        x,
        train=True,
        rngs={"dropout": jax.random.key(1)},
        mutable=["batch_stats"],
    )
    return np.corrcoef(np.asarray(y).T)[0, 1]


class DropoutAlone(nn.Module):
    rate: float

    @nn.compact
    def __call__(self, x, train):
        return nn.Dropout(self.rate, deterministic=not train)(x)


@pytest.mark.parametrize("keep", [0.9, 0.5])
def test_correlations_are_multiplied_by_the_share_that_is_kept(keep):
    x = inputs()
    # A correlation of 200,000 rows has a standard error of up to 1/447.
    found = correlation(IndependentComponents(1 - keep), x)
    assert found == pytest.approx(keep * CORRELATION, abs=0.01)
    # The control: the mean adds to the variance of what a dropout keeps.
    alone = correlation(DropoutAlone(1 - keep), x)
    assert alone < keep * CORRELATION - 0.1


class Net(nn.Module):
    activation: object = nn.relu

    @nn.compact
    def __call__(self, x, train):
        x = self.activation(nn.Dense(6, use_bias=False, name="first")(x))
        x = IndependentComponents(0.5, epsilon=0.0)(x, train)
        return nn.Dense(3, use_bias=False, name="second")(x)


def groups(activation):
    model, x = (
        Net(activation),
        jnp.asarray(np.random.RandomState(0).randn(9, 4)),
    )
    variables = model.init(jax.random.key(0), x, train=False)

    def loss(params, statistics, x):
        y, _ = model.apply(
            {"params": params, **statistics},
            x,
            train=True,
            rngs={"dropout": jax.random.key(1)},
            mutable=["batch_stats"],
        )
        return (y**2 + y**3).mean()

    statistics = {"batch_stats": variables["batch_stats"]}
    report = psi_optax.find_groups(loss, variables["params"], statistics, x)
    return [report[f"{name}/kernel"].group for name in ("first", "second")]


def test_weights_in_front_of_the_activation_are_groups():
    assert groups(nn.relu) == [ScaleGroup(0), None]
    # The control: an activation that is not homogeneous.
    assert groups(nn.tanh) == [None, None]
