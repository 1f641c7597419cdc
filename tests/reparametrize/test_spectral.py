"""spectral: the largest singular value becomes one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax import ScaleGroup
from psi_optax.reparametrize import spectral
from tests.reparametrize.problem import COLUMNS, FILTERS, draw, gradient, rows

pytestmark = pytest.mark.usefixtures("x64")


def largest(matrix):
    return np.linalg.norm(np.asarray(matrix), ord=2)


def test_the_value_and_the_rate_of_its_error():
    kernel = draw(3, 3, 3, 5)
    s = np.linalg.svd(rows(kernel), compute_uv=False)
    exact = rows(kernel) / s[0]
    many = rows(spectral(kernel, FILTERS, steps=100))
    np.testing.assert_allclose(many, exact, rtol=0, atol=1e-14)
    for steps in (2, 5):
        share = largest(rows(spectral(kernel, FILTERS, steps=steps))) - 1
        # Of a start whose part along the vector sought is above 0.3.
        assert 0 <= share < 10 * (s[1] / s[0]) ** (4 * steps)
    assert largest(rows(spectral(kernel, FILTERS, steps=1))) > 1 + 1e-4


def test_the_derivative_is_that_of_the_norm():
    kernel = draw(6, 4)
    found = gradient(lambda k: spectral(k, COLUMNS, steps=200), kernel)
    expected = gradient(lambda k: k / jnp.linalg.norm(k, ord=2), kernel)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert abs(float(jnp.vdot(kernel, found))) < 1e-13
    each = np.sum(rows(kernel) * rows(found), axis=1)
    assert np.abs(each).max() > 1e-3


def test_matrices_that_a_fixed_start_misses():
    """Rows of mean zero, and rows that cancel."""
    centered = draw(6, 4) - draw(6, 4).mean(axis=0, keepdims=True)
    opposite = jnp.concatenate([draw(6, 2), -draw(6, 2)], axis=1)
    for kernel in (centered, opposite):
        got = spectral(kernel, COLUMNS, steps=100)
        np.testing.assert_allclose(largest(got), 1, rtol=0, atol=1e-14)


def test_zeros_and_powers_of_two():
    zeros = jnp.zeros((4, 3))
    np.testing.assert_array_equal(spectral(zeros, COLUMNS), 0)
    found = jax.grad(lambda k: jnp.sum(spectral(k, COLUMNS)))(zeros)
    assert jnp.isfinite(found).all()
    kernel = draw(6, 4).astype(jnp.float32)
    expected = spectral(kernel, COLUMNS)
    np.testing.assert_array_equal(spectral(16 * kernel, COLUMNS), expected)
    assert np.abs(spectral(kernel + 1, COLUMNS) - expected).max() > 0.01


def test_errors():
    params = {"k": draw(5, 4)}
    with pytest.raises(ValueError, match="steps"):
        spectral(params, {"k": COLUMNS}, steps=0)
    with pytest.raises(NotImplementedError, match="'k' of shape.*axis_name"):
        spectral(params, {"k": ScaleGroup(0, axis_name="d")})
