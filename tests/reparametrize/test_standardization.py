"""standardized, against the forms that others have."""

import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax.reparametrize import centered, standardized
from tests.reparametrize.problem import (
    COLUMNS,
    FILTERS,
    along,
    draw,
    gradient,
    rows,
)

pytestmark = pytest.mark.usefixtures("x64")

# Sums of 27 products of numbers of about one, and some ten operations.
CLOSE = {"rtol": 0, "atol": 40 * 2.3e-16}


def standardize(filters, ddof=0, inside=0.0, outside=0.0):
    """Return the published form: epsilons under the root or beside it."""
    rest = filters - filters.mean(axis=1, keepdims=True)
    variance = filters.var(axis=1, ddof=ddof, keepdims=True)
    return rest / (np.sqrt(variance + inside) + outside)


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("epsilon", [0.0, 1e-6, 1e-2])
def test_the_epsilon_under_the_root_as_in_layer_norm(ddof, epsilon):
    kernel = draw(3, 3, 3, 5)
    got = rows(standardized(kernel, FILTERS, ddof=ddof, epsilon=epsilon))
    expected = standardize(rows(kernel), ddof, inside=epsilon)
    np.testing.assert_allclose(got, expected, **CLOSE)
    other = standardize(rows(kernel), 1 - ddof, inside=epsilon)
    assert np.abs(got - other).max() > 1e-3


def test_the_epsilon_beside_the_root_differs_by_what_it_is():
    """The code of the paper adds 1e-5 to the deviation of torch's `std`."""
    kernel = draw(3, 3, 3, 5)
    got = rows(standardized(kernel, FILTERS, ddof=1))
    theirs = standardize(rows(kernel), 1, outside=1e-5)
    deviation = rows(kernel).std(axis=1, ddof=1, keepdims=True)
    predicted = got * deviation / (deviation + 1e-5)
    np.testing.assert_allclose(theirs, predicted, **CLOSE)
    assert 1e-6 < np.abs(theirs - got).max() < 1e-4


def test_the_gain_is_the_norm():
    kernel = draw(3, 3, 3, 5)
    scaled = standardized(kernel, FILTERS, gain=1.7)
    np.testing.assert_allclose(scaled, centered(kernel, FILTERS, 1.7), **CLOSE)
    norms = np.linalg.norm(rows(scaled), axis=1)
    np.testing.assert_allclose(norms, 1.7, **CLOSE)
    plain = standardized(kernel, FILTERS)
    np.testing.assert_allclose(scaled, plain * 1.7 / 27**0.5, **CLOSE)
    assert np.abs(plain - scaled).max() > 0.1


def test_gradients_are_orthogonal_to_weights_and_means():
    kernel = draw(3, 3, 3, 5)
    ones = jnp.ones_like(kernel)
    exact = gradient(lambda k: standardized(k, FILTERS), kernel)
    np.testing.assert_allclose(along(kernel, exact), 0, atol=2e-13)
    np.testing.assert_allclose(along(ones, exact), 0, atol=2e-13)
    # An epsilon keeps the mean out, and lets the scale in.
    found = gradient(lambda k: standardized(k, FILTERS, epsilon=1e-3), kernel)
    np.testing.assert_allclose(along(ones, found), 0, atol=2e-13)
    assert np.abs(along(kernel, found)).max() > 1e-4


def test_equal_weights():
    kernel = jnp.stack([jnp.full(9, 0.1), draw(9)], axis=1)
    np.testing.assert_array_equal(standardized(kernel, COLUMNS)[:, 0], 0)
    with_epsilon = standardized(kernel, COLUMNS, epsilon=1e-5)
    # Rounding of 0.1 over the root of the epsilon.
    assert np.abs(with_epsilon[:, 0]).max() < 1e-13
    for epsilon in (0.0, 1e-5):
        found = gradient(
            lambda k, e=epsilon: standardized(k, COLUMNS, epsilon=e), kernel
        )
        assert jnp.isfinite(found).all()


def test_a_power_of_two_changes_no_bit():
    kernel = draw(3, 3, 3, 5).astype(jnp.float32)
    expected = standardized(kernel, FILTERS, gain=1.5)
    got = standardized(16 * kernel, FILTERS, gain=1.5)
    np.testing.assert_array_equal(got, expected)
    with_epsilon = [
        standardized(factor * kernel, FILTERS, epsilon=1e-5)
        for factor in (1, 16)
    ]
    assert np.abs(with_epsilon[0] - with_epsilon[1]).max() > 1e-6


def test_it_is_a_projection():
    kernel = draw(3, 3, 3, 5)
    once = standardized(kernel, FILTERS)
    np.testing.assert_allclose(standardized(once, FILTERS), once, **CLOSE)
    assert np.abs(once - kernel).max() > 0.1


def test_arguments():
    for options in ({"ddof": 2}, {"epsilon": -1e-5}, {"gain": jnp.nan}):
        [name] = options
        with pytest.raises(ValueError, match=name):
            standardized(draw(4, 3), COLUMNS, **options)
    with pytest.raises(TypeError, match="gain"):
        standardized(draw(4, 3), COLUMNS, gain="1")
    single = {"k": draw(1, 3)}
    with pytest.raises(ValueError, match=r"'k' of shape \(1, 3\).*ddof=0"):
        standardized(single, {"k": COLUMNS}, ddof=1)
    assert not standardized(single, {"k": COLUMNS})["k"].any()
