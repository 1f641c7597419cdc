"""Weight decay at the edge of stability reduces the sharpness of the sphere.

The loss is (u₃²/2)(1 + 8 u₁²) of the direction u. Its minima are a circle,
along which the sharpness is 1 + 8 cos² φ. Gradient descent with decay λ and
rate η follows, with τ = ηλt and ℓ the logarithm of the sharpness,

    dφ/dτ = -2 ℓ' / (4 + ℓ'²)

up to errors of first order in ηλ.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from psi_optax import ScaleGroup
from psi_optax.landscape import eigenpairs, hessian, stability_threshold

pytestmark = pytest.mark.usefixtures("x64", "optax_promotion")

RATE, START = 0.1, 0.35
TIMES = np.array([0.1, 0.2, 0.4, 0.8, 1.6])


def loss(w):
    u = w / jnp.linalg.norm(w)
    return u[2] ** 2 * (1 + 8 * u[0] ** 2) / 2


def sharpness_at(angle):
    return 1 + 8 * np.cos(angle) ** 2


def log_slope(angle):
    return -16 * np.cos(angle) * np.sin(angle) / sharpness_at(angle)


def predicted():
    """Return the sharpness of the flow at the times."""
    steps, angle, found = 3200, START, []
    size = TIMES[-1] / steps

    def slope(angle):
        return -2 * log_slope(angle) / (4 + log_slope(angle) ** 2)

    for i in range(1, steps + 1):
        # The midpoint rule, whose error here is below 1e-6.
        angle += size * slope(angle + size / 2 * slope(angle))
        if np.isclose(i * size, TIMES).any():
            found.append(sharpness_at(angle))
    return np.array(found)


def start(height, norm):
    u = np.array([np.cos(START), np.sin(START), height])
    return jnp.array(norm * u / np.linalg.norm(u))


def top_eigenvalue(w):
    """Return the sharpness of the sphere at the minimum next to w."""
    curvature = hessian(loss, w.at[2].set(0), groups=ScaleGroup(0))
    return eigenpairs(curvature, jax.random.key(0), num_matvecs=2).values[0]


def run(tx, w, steps, at):
    """Return the sharpness after some numbers of steps."""

    def step(carry, _):
        w, state = carry
        updates, state = tx.update(jax.grad(loss)(w), state, w)
        w = optax.apply_updates(w, updates)
        return (w, state), w

    walk = jax.jit(functools.partial(jax.lax.scan, step, length=steps))
    _, path = walk((w, tx.init(w)), None)
    return np.asarray(jax.vmap(top_eigenvalue)(path[np.asarray(at) - 1]))


def with_decay(product):
    """Return the sharpness at the times, under gradient descent with decay."""
    tx = optax.chain(optax.add_decayed_weights(product / RATE), optax.sgd(RATE))
    sharpness = sharpness_at(START)
    # On the edge: the plain sharpness is that of the sphere over the square.
    norm = np.sqrt(sharpness / stability_threshold(RATE))
    square = 2 * product / (4 + log_slope(START) ** 2)
    at = np.rint(TIMES / product).astype(int)
    return run(tx, start(np.sqrt(square), norm), at[-1], at)


def test_decay_moves_along_the_flow_to_first_order():
    expected = predicted()
    assert expected[-1] < 0.4 * sharpness_at(START)
    coarse, fine = (
        np.abs(with_decay(product) - expected).max() for product in (1e-2, 1e-3)
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
