"""unit, centered and normalize: values, derivatives, zeros and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from psi_optax import ScaleGroup, diagnostics, normalize
from psi_optax.reparametrize import centered, unit
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


def test_values():
    kernel = draw(3, 3, 3, 5)
    filters = rows(kernel)
    norms = np.linalg.norm(filters, axis=1, keepdims=True)
    got = rows(unit(kernel, FILTERS, 1.5))
    np.testing.assert_allclose(got, 1.5 * filters / norms, **CLOSE)
    rest = filters - filters.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(rest, axis=1, keepdims=True)
    got = rows(centered(kernel, FILTERS, 1.5))
    np.testing.assert_allclose(got, 1.5 * rest / norms, **CLOSE)


def test_a_gain_for_each_group():
    params = {"k": draw(4, 3), "o": jnp.ones(2)}
    groups = {"k": COLUMNS, "o": None}
    gains = {"k": jnp.array([2.0, -1.0, 0.0])}
    for function in (unit, centered):
        got = function(params, groups, gains)
        one = function(params, groups)
        np.testing.assert_array_equal(got["o"], params["o"])
        np.testing.assert_allclose(
            got["k"], one["k"] * gains["k"][None], **CLOSE
        )


def test_gradients_are_orthogonal_to_what_is_lost():
    kernel = draw(3, 3, 3, 5)
    ones = jnp.ones_like(kernel)
    of_unit = gradient(lambda k: unit(k, FILTERS), kernel)
    of_centered = gradient(lambda k: centered(k, FILTERS), kernel)
    for found in (of_unit, of_centered):
        np.testing.assert_allclose(along(kernel, found), 0, **CLOSE)
    np.testing.assert_allclose(along(ones, of_centered), 0, **CLOSE)
    # A mean is not lost without centering, nor a scale without division.
    assert np.abs(along(ones, of_unit)).max() > 0.1
    plain = gradient(lambda k: k, kernel)
    assert np.abs(along(kernel, plain)).max() > 0.1


@pytest.mark.parametrize("function", [unit, centered])
def test_a_power_of_two_changes_no_bit(function):
    kernel = draw(3, 3, 3, 5).astype(jnp.float32)
    factors = jnp.ldexp(jnp.float32(1), jnp.arange(-4, 6, 2))
    expected = function(kernel, FILTERS)
    scaled = kernel * factors[None, None, None]
    np.testing.assert_array_equal(function(scaled, FILTERS), expected)
    other = function(kernel + 1e-3, FILTERS)
    assert np.abs(other - function(3 * kernel, FILTERS)).max() > 0


@pytest.mark.parametrize("function", [unit, centered])
def test_zeros_stay_zero_and_have_finite_derivatives(function):
    kernel = draw(4, 3).at[:, 1].set(0)
    got = function(kernel, COLUMNS)
    np.testing.assert_array_equal(got[:, 1], 0)
    np.testing.assert_allclose(np.linalg.norm(got, axis=0), [1, 0, 1], **CLOSE)
    for order in (jax.grad, jax.hessian):
        found = order(lambda k: jnp.sum(jnp.tanh(function(k, COLUMNS))))(kernel)
        assert jnp.isfinite(found).all()
    by_hand = jax.grad(lambda k: jnp.sum(k / jnp.linalg.norm(k, axis=0)[None]))
    assert not jnp.isfinite(by_hand(kernel)).all()


def test_equal_weights_up_to_rounding_have_no_centered_direction():
    kernel = jnp.stack([jnp.full(9, 0.1), draw(9)], axis=1)
    got = centered(kernel, COLUMNS)
    assert 0.1 - jnp.full(9, 0.1).mean() != 0
    np.testing.assert_array_equal(got[:, 0], 0)
    assert jnp.linalg.norm(got[:, 1]) > 0.9
    found = jax.grad(lambda k: jnp.sum(jnp.tanh(centered(k, COLUMNS))))(kernel)
    np.testing.assert_array_equal(found[:, 0], 0)
    # One that is 1e-12 from constant has a direction.
    nearly = kernel.at[0, 0].add(1e-12)
    assert jnp.linalg.norm(centered(nearly, COLUMNS)[:, 0]) > 0.9


def test_non_finite_and_huge_weights_do_not_become_zero():
    for weight in (jnp.nan, jnp.inf, 1e200):
        kernel = draw(4, 2).at[0, 1].set(weight)
        for function in (unit, centered):
            got = function(kernel, COLUMNS)
            assert jnp.isnan(got[:, 1]).any()
            assert jnp.isfinite(got[:, 0]).all()


def test_normalize_is_the_same_mechanism():
    kernel = draw(4, 3)
    assert diagnostics.normalize is normalize
    np.testing.assert_array_equal(
        normalize(kernel, COLUMNS, 2.0), unit(kernel, COLUMNS, 2.0)
    )
    np.testing.assert_array_equal(
        normalize(kernel, COLUMNS, 2.0, centered=True),
        centered(kernel, COLUMNS, 2.0),
    )
    # It keeps what has no direction.
    constant = jnp.ones((4, 3))
    kept = normalize(constant, COLUMNS, 2.0, centered=True)
    np.testing.assert_array_equal(kept, constant)
    assert not centered(constant, COLUMNS).any()


def test_ties_and_blocks():
    params = {"k": draw(3, 4), "b": draw(4, seed=1)}
    tied = {"k": ScaleGroup(0, tie="t"), "b": ScaleGroup((), tie="t")}
    got = unit(params, tied)
    norms = np.sqrt(np.sum(got["k"] ** 2, axis=0) + got["b"] ** 2)
    np.testing.assert_allclose(norms, 1, **CLOSE)
    blocked = ScaleGroup((0, 1), blocks={1: 2})
    got = centered(draw(3, 4), blocked).reshape(3, 2, 2)
    np.testing.assert_allclose(got.sum((0, 2)), 0, **CLOSE)
    np.testing.assert_allclose((got**2).sum((0, 2)), 1, **CLOSE)


def test_masks_and_dtypes_stay():
    params = {"k": jnp.full((64, 2), 0.1, "bfloat16"), "o": optax.MaskedNode()}
    groups = {"k": COLUMNS, "o": None}
    got = unit(params, groups)
    assert got["k"].dtype == jnp.bfloat16
    assert np.all(np.asarray(got["k"]) == 0.125)
    assert got["o"] == optax.MaskedNode()


@pytest.mark.parametrize("function", [unit, centered])
def test_gains_that_do_not_fit(function):
    kernel = {"k": draw(4, 3)}
    for gains in ({"k": jnp.ones(4)}, {"j": jnp.ones(3)}, {}):
        with pytest.raises(ValueError, match=r"gains are of.*'k'.*\(3,\)"):
            function(kernel, {"k": COLUMNS}, gains)
    with pytest.raises(TypeError, match="gains"):
        function(kernel, {"k": COLUMNS}, "1")
    with pytest.raises(ValueError, match="gains"):
        function(kernel, {"k": COLUMNS}, jnp.ones(3))
    with pytest.raises(ValueError, match="'k'"):
        function(kernel, {"j": COLUMNS})
