"""He's initialization by fan-out keeps the variance of gradients."""

import itertools

import jax
import jax.numpy as jnp
import pytest

from tests.initialize.networks import draw

pytestmark = pytest.mark.usefixtures("x64")

DEPTH, WIDTH = 6, 200


def growth(mode, widths):
    """Return the variance of gradients by inputs over that by outputs."""
    init = jax.nn.initializers.variance_scaling(2.0, mode, "normal")
    kernels = [
        init(jax.random.key(i), shape, jnp.float64)
        for i, shape in enumerate(itertools.pairwise(widths))
    ]

    def outputs(x):
        for kernel in kernels:
            x = jax.nn.relu(x) @ kernel
        return x

    x = draw(50, widths[0])
    cotangent = draw(50, widths[-1], seed=1)
    gradient = jax.vjp(outputs, x)[1](cotangent)[0]
    return float(gradient.var() / cotangent.var())


def test_gradients_keep_their_variance_by_fan_out():
    widths = [WIDTH * (1 + i % 2) for i in range(DEPTH + 1)]
    widths[-1] = 4 * WIDTH
    # A layer of n units is off by about the root of 5/n: six are by 0.4.
    assert 0.6 < growth("fan_out", widths) < 1.6
    # By fan-in it grows by the ratio of the widths at the ends, 4.
    assert 2.4 < growth("fan_in", widths) < 6.4
