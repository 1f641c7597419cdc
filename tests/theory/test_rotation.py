"""`rotation`: angles in float32, against numpy in float64.

An angle t has a cosine of 1 - t^2/2, which is 1 in float32 below t = 3e-4. The
oracle is atan2(|v x v'|, <v, v'>) with the sine of what remains of w' when its
part along w is taken off, in double precision, of the very same float32
weights: near angles of 1e-7 their rounding is most of the angle.
"""

import jax.numpy as jnp
import numpy as np
import pytest

import psi_optax
from psi_optax import ScaleGroup
from tests.compilation import quick_jit
from tests.theory.training import first_update

ANGLES = np.concatenate(
    [np.geomspace(1e-7, 1, 22), [1.5, np.pi / 2, 3.0, 3.14, np.pi]]
)


def turned(size, angles, stretch=1.0, dtype=np.float32, seed=0):
    """Columns, and the same turned by the angles; both rounded."""
    random = np.random.RandomState(seed)
    w, x = random.normal(size=(2, size, len(angles)))
    radius = np.linalg.norm(w, axis=0)
    x -= w * (w * x).sum(0) / radius**2
    x *= radius / np.linalg.norm(x, axis=0)
    new = stretch * (w * np.cos(angles) + x * np.sin(angles))
    return w.astype(dtype), new.astype(dtype)


def oracle(old, new):
    old, new = np.asarray(old, np.float64), np.asarray(new, np.float64)
    v = old / np.linalg.norm(old, axis=0)
    along = (v * new).sum(0)
    return np.arctan2(np.linalg.norm(new - v * along, axis=0), along)


def by_arccos(old, new):
    """What one would write at first, in float32."""
    inner = (old * new).sum(0)
    norms = np.sqrt((old**2).sum(0) * (new**2).sum(0))
    assert inner.dtype == norms.dtype == np.float32
    return np.arccos(np.clip(inner / norms, -1, 1))


@quick_jit
def _rotation(old, new):
    return psi_optax.rotation(old, new, ScaleGroup(axes=0))


def measure(old, new):
    """The rotation of every column."""
    return np.asarray(_rotation(old, new))


@pytest.mark.parametrize("size", [4, 64, 4608])
def test_angles_from_tiny_to_straight(size):
    old, new = turned(size, ANGLES)
    np.testing.assert_allclose(measure(old, new), oracle(old, new), rtol=1e-3)
    # The oracle is the angle meant, where float32 weights can have it.
    wide = ANGLES > 1e-3
    np.testing.assert_allclose(oracle(old, new)[wide], ANGLES[wide], rtol=1e-3)


def test_arccos_is_lost_on_small_angles():
    old, new = turned(64, np.full(20, 1e-5))
    error = np.abs(by_arccos(old, new) / 1e-5 - 1)
    assert error.min() > 0.5
    assert np.abs(measure(old, new) / oracle(old, new) - 1).max() < 1e-3


@pytest.mark.parametrize("size", [1, 25_000])
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.float16])
def test_identical_weights_have_turned_by_zero(size, dtype):
    w = np.random.RandomState(0).normal(size=(size, 5)).astype(dtype)
    angle = measure(w, w)
    assert np.array_equal(angle, np.zeros(5, np.float32))
    assert angle.dtype == np.float32


def test_rescaled_weights_have_not_turned():
    w = turned(64, np.ones(5))[0]
    for factor in (0.1, 0.125, 2.0, 3.0, 1000.0):
        scaled = (factor * w).astype(np.float32)
        assert np.max(measure(w, scaled)) < tolerance(factor)


def tolerance(stretch):
    """With another norm the change is as large as the larger of the two.

    Its part across is a difference of numbers of that size, some roundings of
    6e-8 of it; the angle is that over the norm after.
    """
    return 5e-7 * max(1, 1 / stretch)


@pytest.mark.parametrize("stretch", [0.01, 0.5, 1.001, 3.0, 100.0])
def test_angle_does_not_see_the_norm(stretch):
    angles = ANGLES[ANGLES > 1e-3]
    old, new = turned(64, angles, stretch)
    error = np.abs(measure(old, new) - oracle(old, new))
    assert error.max() < tolerance(stretch)


def test_powers_of_two_change_no_bit():
    old, new = turned(64, ANGLES)
    expected = measure(old, new)
    for factor in (2.0**-20, 2.0**20):
        scale = np.float32(factor)
        assert np.array_equal(measure(scale * old, scale * new), expected)


def test_a_step_of_psi_turns_by_the_arctangent_of_its_length():
    # rate |gbar| = t: arctan t by projection, t by the exponential map.
    w = np.array([[2.0], [0.0]], np.float32)
    gradient = np.array([[0.0], [-0.5]], np.float32)
    for kind, expected in (
        ("projection", np.arctan(0.3)),
        ("exponential", 0.3),
    ):
        tx = psi_optax.psi_sgd(0.3, ScaleGroup(0), retraction=kind)
        angle = measure(w, w + first_update(tx, gradient, w))
        np.testing.assert_allclose(angle, expected, rtol=1e-6)
