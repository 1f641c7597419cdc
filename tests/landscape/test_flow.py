"""Weight decay at the edge of stability reduces the sharpness of the sphere."""

import jax.numpy as jnp
import numpy as np
import pytest

import psi_optax
from benchmarks.experiments.sharpness_flow import (
    START,
    predict,
    run,
    run_with_decay,
    sharpness_at,
    start,
)
from psi_optax import ScaleGroup
from psi_optax.landscape import stability_threshold

pytestmark = pytest.mark.usefixtures("x64", "optax_promotion")

TIMES = np.array([0.1, 0.2, 0.4, 0.8, 1.6])


def test_decay_moves_along_the_flow_to_first_order():
    expected = predict(TIMES)
    assert expected[-1] < 0.4 * sharpness_at(START)
    coarse, fine = (
        np.abs(run_with_decay(product, TIMES) - expected).max()
        for product in (1e-2, 1e-3)
    )
    # Errors of first order, whose factor is 3.
    assert coarse < 0.05
    assert fine < 0.005
    assert 8 < coarse / fine < 12


def test_below_the_threshold_nothing_moves():
    tx = psi_optax.psi_sgd(0.9 * 2 / sharpness_at(START), ScaleGroup(0))
    [end] = run(tx, start(1e-3, 1.0), 1000, [1000])
    np.testing.assert_allclose(end, sharpness_at(START), rtol=1e-4)


def test_above_it_a_constant_rate_of_psi_ends_below_its_threshold():
    threshold = sharpness_at(START) / 1.2
    rate = 2 / threshold
    tx = psi_optax.psi_sgd(rate, ScaleGroup(0))
    [end] = run(tx, start(1e-3, 1.0), 2000, [2000])
    assert end < stability_threshold(rate)
    assert end > 0.8 * stability_threshold(rate)


def test_a_rising_rate_of_psi_keeps_the_sharpness_at_its_threshold():
    growth, steps = 1e-3, 1386  # A factor of 4.
    first = 2 / sharpness_at(START) * 1.001

    def schedule(count):
        return first * jnp.exp(growth * jnp.asarray(count, float))

    tx = psi_optax.psi_sgd(schedule, ScaleGroup(0))
    at = steps * np.arange(1, 5) // 4
    found = run(tx, start(1e-3, 1.0), steps, at)
    # It lags by what the first burst leaves, and by the growth of a step.
    ratio = found / stability_threshold(schedule(at - 1))
    np.testing.assert_allclose(ratio, 1, atol=0.05)
    assert found[-1] < 0.3 * sharpness_at(START)
