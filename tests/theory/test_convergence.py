"""Descent, growth of norms and the rate of Theorem 2, on Rayleigh quotients.

L(w) = w'Aw/w'w is the ideal test of the PSI paper's theory (Yi, arXiv
2101.02916, UAI 2022): with gbar = 2 (Av - (v'Av) v) the gradient in direction
space, its curvature on the sphere, the constant Lv of Theorem 2, is at most
2 (lambda_max - lambda_min), which is 2 for the matrix taken here; and its
minimum is lambda_min = 1.
"""

import numpy as np
import optax
import pytest

import psi_optax
from tests.theory.networks import rayleigh, rayleigh_gradient
from tests.theory.scales import norms
from tests.theory.training import path_of

pytestmark = pytest.mark.usefixtures("x64")

CURVATURE, MINIMUM = 2.0, 1.0
STEPS = 500


def noiseless():
    return rayleigh(STEPS, noise=0.0)


def trace(problem, tx, scale=1.0):
    """Weights, losses and |gbar|^2 before and after every step, by column."""
    start = scale * problem.params
    path = np.concatenate([start[None], path_of(tx, problem, start)])
    v = path / np.linalg.norm(path, axis=1, keepdims=True)
    # The last point meets the first matrix; only noisy problems could tell.
    matrices = np.concatenate([problem.batches, problem.batches[:1]])
    loss = (v * (matrices @ v)).sum(1)
    gradients = [
        rayleigh_gradient(x, matrix)
        for x, matrix in zip(v, matrices, strict=True)
    ]
    return path, loss, (np.array(gradients) ** 2).sum(1)


def additive(problem, rate):
    return psi_optax.psi_sgd(rate, problem.groups, retraction=None)


def growth_of(path):
    """Return log |w_T|^2/|w_0|^2."""
    return np.log((path[-1] ** 2).sum(0) / (path[0] ** 2).sum(0))


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_growth_of_the_norm_is_an_identity(rate):
    # The step is orthogonal to the weights and r rate |gbar| long, so every
    # step multiplies r^2 by 1 + rate^2 |gbar|^2. 300 factors round 300 times.
    problem = rayleigh()
    path, _, square = trace(problem, additive(problem, rate))
    growth = growth_of(path)
    expected = np.log1p(rate**2 * square[:-1]).sum(0)
    np.testing.assert_allclose(growth, expected, rtol=1e-12)
    assert growth.min() > 0.1
    # The control: with a retraction there is no growth to explain.
    kept = path_of(psi_optax.psi_sgd(rate, problem.groups), problem)
    np.testing.assert_allclose(
        norms(kept, problem.ids)[-1], norms(path[0], problem.ids)[0], 1e-14
    )


def growth_bound(loss, rate=1 / CURVATURE):
    """Of log |w_T|^2/|w_0|^2, at the rate 1/Lv: 2 rate (L_0 - L_*)."""
    return 2 * rate * (loss[0] - MINIMUM)


def test_growth_of_the_norm_is_bounded():
    # log(1 + x) <= x, and at this rate descent pays for every |gbar|^2.
    problem = noiseless()
    path, loss, _ = trace(problem, additive(problem, 1 / CURVATURE))
    assert np.all(growth_of(path) <= growth_bound(loss))


def test_growth_beyond_the_bound():
    # Four times the rate at which Theorem 2 holds: descent is lost, and the
    # norm with it.
    problem = noiseless()
    path, loss, _ = trace(problem, additive(problem, 4 / CURVATURE))
    assert np.all(growth_of(path) > growth_bound(loss))


RETRACTIONS = ["projection", None]


@pytest.mark.parametrize("retraction", RETRACTIONS)
@pytest.mark.parametrize("scale", [1.0, 37.0, 1e-3])
def test_theorem_2(scale, retraction):
    # min over t < T of |gbar_t|^2 <= 2 Lv (L_0 - L_*)/T, at every T and from
    # every scale.
    problem = noiseless()
    tx = psi_optax.psi_sgd(1 / CURVATURE, problem.groups, retraction=retraction)
    _, loss, square = trace(problem, tx, scale)
    assert np.all(best(square) <= rate_bound(loss))


def best(square):
    """The least |gbar|^2 of the first T points, for T = 1, 2, ..."""
    return np.minimum.accumulate(square[:-1])


def rate_bound(loss):
    steps = np.arange(1, STEPS + 1)[:, None]
    return 2 * CURVATURE * (loss[0] - MINIMUM) / steps


def test_gradient_descent_misses_the_bound_of_theorem_2():
    # From 37 times the norm its rate is in truth 1/37^2 of the one it has.
    problem = noiseless()
    _, loss, square = trace(problem, optax.sgd(1 / CURVATURE), 37.0)
    assert np.all(best(square)[-1] > rate_bound(loss)[-1])


@pytest.mark.parametrize("rate", [0.5, 1.0, 1.5, 2.0])
def test_descent_of_every_step(rate):
    # Along v - s gbar the norm is at least 1 and so the curvature at most Lv:
    # L_{t+1} <= L_t - rate (1 - rate Lv/2) |gbar_t|^2, monotone up to 2/Lv.
    problem = noiseless()
    rate = rate / CURVATURE
    tx = psi_optax.psi_sgd(rate, problem.groups)
    _, loss, square = trace(problem, tx)
    promised = rate * (1 - rate * CURVATURE / 2) * square[:-1]
    # Losses of size 1 and 2 round by 2e-16 and a sum of nine terms by more.
    assert np.all(loss[1:] <= loss[:-1] - promised + 1e-14)
    assert np.all(loss[-1] - MINIMUM < 1e-3)


def test_no_descent_beyond_the_curvature():
    problem = noiseless()
    tx = psi_optax.psi_sgd(8 / CURVATURE, problem.groups)
    _, loss, _ = trace(problem, tx)
    assert np.any(loss[1:] > loss[:-1] + 1e-3)


def test_curvature_on_the_sphere():
    # What the constant of this module means, checked by second differences of
    # the loss along great circles through random points: 1e-4 squared times a
    # fourth derivative of 16 or less, and rounding of 2e-16/1e-8.
    problem = noiseless()
    random = np.random.RandomState(0)
    matrix = problem.batches[0]
    v, x = random.normal(size=(2, 9, 2000))
    v /= np.linalg.norm(v, axis=0)
    x -= v * (v * x).sum(0)
    x /= np.linalg.norm(x, axis=0)

    def loss(time):
        w = v * np.cos(time) + x * np.sin(time)
        return (w * (matrix @ w)).sum(0)

    second = (loss(1e-4) - 2 * loss(0.0) + loss(-1e-4)) / 1e-8
    assert np.abs(second).max() < CURVATURE + 1e-6
    assert np.abs(second).max() > 0.7 * CURVATURE
