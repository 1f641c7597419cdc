"""Paths that are known in closed form.

For L(w) = 1 - <b, w>/|w| with |b| = 1, a path is given by q = <b, v> = cos a:
gbar = -(b - q v) has length sin a and lies in the plane of b and v. A tangent
step of rate sin a turns v toward b by arctan(rate sin a) under projection, that
is (Amin, Chang and Khanna, "When does scale-invariant optimization become
unstable?", theorem 3.4, at a constant directional rate)

    q' = (q + rate (1 - q^2)) / sqrt(1 + rate^2 (1 - q^2)),

and by rate sin a itself under the exponential map: a' = a - rate sin a.
"""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from psi_optax import ScaleGroup
from tests.theory.networks import Problem, cosine_loss
from tests.theory.training import path_of

pytestmark = pytest.mark.usefixtures("x64")

STEPS, SIZE, RATE = 200, 11, 0.1
# Each step rounds q by some 1e-16, and the map, whose slope is at most
# 1 + 2 rate, amplifies that on the way from the pole that repels: q leaves
# -0.99 within 60 steps, 1.1^60 = 300.
ROUNDING = 1e-12


def problem(radius=5.0, start=-0.99):
    random = np.random.RandomState(0)
    target, other = np.linalg.qr(random.normal(size=(SIZE, 2)))[0].T
    w = radius * (start * target + np.sqrt(1 - start**2) * other)
    batches = np.tile(target, (STEPS, 1))
    return Problem(
        cosine_loss, w, ScaleGroup(0), np.zeros(SIZE, np.int64), batches
    )


def cosines(tx, problem):
    """The cosine q after every step."""
    path = path_of(tx, problem)
    return path @ problem.batches[0] / np.linalg.norm(path, axis=1)


def projected(q, rate=RATE):
    for _ in range(STEPS):
        s = 1 - q**2
        q = (q + rate * s) / np.sqrt(1 + rate**2 * s)
        yield q


def geodesic(q, rate=RATE):
    angle = np.arccos(q)
    for _ in range(STEPS):
        angle -= rate * np.sin(angle)
        yield np.cos(angle)


@pytest.mark.parametrize(
    "options", [{}, {"retraction": None}, {"radius": None}, {"radius": 0.1}]
)
@pytest.mark.parametrize("radius", [1.0, 5.0, 1e-6])
def test_path_by_projection(radius, options):
    run = problem(radius)
    q = cosines(psi_optax.psi_sgd(RATE, run.groups, **options), run)
    np.testing.assert_allclose(q, list(projected(-0.99)), atol=ROUNDING)
    assert q[-1] > 0.99
    assert np.abs(q - list(geodesic(-0.99))).max() > 1e-3


@pytest.mark.parametrize("radius", [1.0, 5.0])
def test_path_by_the_exponential_map(radius):
    run = problem(radius)
    tx = psi_optax.psi_sgd(RATE, run.groups, retraction="exponential")
    q = cosines(tx, run)
    np.testing.assert_allclose(q, list(geodesic(-0.99)), atol=ROUNDING)
    assert np.abs(q - list(projected(-0.99))).max() > 1e-3


def test_path_of_a_large_rate():
    # Beyond a right angle the projection cannot turn, the geodesic can.
    run = problem(start=0.3)
    tx = psi_optax.psi_sgd(1.5, run.groups)
    expected = list(projected(0.3, 1.5))
    np.testing.assert_allclose(cosines(tx, run), expected, atol=ROUNDING)
    tx = psi_optax.psi_sgd(1.5, run.groups, retraction="exponential")
    expected = list(geodesic(0.3, 1.5))
    np.testing.assert_allclose(cosines(tx, run), expected, atol=ROUNDING)


def test_path_under_a_schedule():
    def schedule(count):
        return RATE / (1 + count.astype(jnp.float64))

    run = problem(start=0.1)
    q, expected = 0.1, []
    for step in range(STEPS):
        rate = RATE / (1 + step)
        q = (q + rate * (1 - q**2)) / np.sqrt(1 + rate**2 * (1 - q**2))
        expected.append(q)
    actual = cosines(psi_optax.psi_sgd(schedule, run.groups), run)
    np.testing.assert_allclose(actual, expected, atol=ROUNDING)
    constant = cosines(psi_optax.psi_sgd(RATE, run.groups), run)
    assert np.abs(constant - expected).max() > 0.1


def test_path_of_gradient_descent():
    # The control: its rate is a 25th of this at a norm of 5, and falls.
    run = problem()
    q = cosines(optax.sgd(RATE), run)
    assert np.abs(q - list(projected(-0.99))).max() > 0.5
