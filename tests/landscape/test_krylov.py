"""Eigenvalues of small matrices: bounds, and the end of a Krylov space."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from psi_optax.landscape import (
    eigenpairs,
    hessian,
    spectral_density,
)
from tests.landscape.network import (
    of_matrix,
)

KEY = jax.random.key(1)
METHODS = ("lanczos", "arpack")


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 8), st.booleans())
def test_an_eigenvalue_lies_within_each_residual(seed, size, is_low_rank):
    rng = np.random.RandomState(seed)
    factor = rng.normal(size=(size, size)).astype(np.float32)
    if is_low_rank:
        factor[1:] = 0
    matrix = factor + factor.T
    exact = np.linalg.eigvalsh(matrix.astype(np.float64))
    steps = min(4, size)
    # Eight of a size, so that few programs compile.
    found = PAIRS(jnp.asarray(np.pad(matrix, (0, 8 - size))), steps)
    exact = np.append(exact, np.zeros(8 - size))
    for value, residual in zip(found.values, found.residuals, strict=True):
        if np.isfinite(residual):
            assert np.abs(exact - value).min() <= residual
    # Values are at most the largest, but for the rounding of products.
    assert found.values[0] <= exact.max() + 1e-5 * np.abs(exact).max()


def _pairs(matrix, steps):
    curvature = hessian(lambda w: w @ matrix @ w / 2, jnp.zeros(8))
    return eigenpairs(curvature, KEY, num=2, num_matvecs=steps)


PAIRS = jax.jit(_pairs, static_argnums=1)


ONE = np.eye(6)[0]
BREAKDOWNS = {
    "identity": (np.eye(6), None, 3, [1.0]),
    "twice the identity": (2 * np.eye(6), None, 3, [2.0]),
    "zero": (np.zeros((6, 6)), None, 2, [0.0]),
    "rank one from its own vector": (np.outer(ONE, ONE), ONE, 3, [1.0]),
    "rank one": (np.outer(ONE, ONE), None, 4, [1.0, 0.0]),
    "full": (np.diag(np.arange(1.0, 7.0)), None, 6, [6, 5, 4, 3, 2, 1]),
    "two values": (np.diag([1.0, 1, 1, 5, 5, 5]), None, 5, [5.0, 1.0]),
    "antisymmetric spectrum": (np.eye(2)[::-1], np.eye(2)[0], 2, [1.0, -1.0]),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", BREAKDOWNS)
def test_the_end_of_a_krylov_space_is_noticed(case, dtype, x64):
    matrix, start, steps, expected = BREAKDOWNS[case]
    curvature = of_matrix(matrix, dtype)
    start = KEY if start is None else jnp.asarray(start, dtype)
    if start is KEY:
        start = jnp.ones(len(matrix), dtype)
    found = eigenpairs(curvature, start, num=steps, num_matvecs=steps)
    exists = np.isfinite(found.residuals)
    # A few roundings of numbers of size 6.
    atol = 30 * jnp.finfo(dtype).eps
    np.testing.assert_allclose(found.values[exists], expected, atol=atol)
    assert (np.asarray(found.values)[~exists] == -np.inf).all()
    assert not np.asarray(found.vectors)[~exists].any()
    # The residual allows for the rounding of couplings.
    assert (np.asarray(found.residuals)[exists] < 1e3 * atol).all()


@pytest.mark.parametrize("case", ["identity", "zero", "rank one"])
def test_degenerate_matrices_by_arpack(case):
    matrix, *_, expected = BREAKDOWNS[case]
    curvature = of_matrix(matrix, "float32")
    found = eigenpairs(
        curvature, KEY, num=2, num_matvecs=4, method="arpack", tolerance=0.0
    )
    # A few roundings.
    np.testing.assert_allclose(found.values[0], expected[0], atol=1e-6)
    assert found.residuals[0] < 1e-6
    # What does not exist, or the other copy of the identity's.
    second = {"identity": 1, "zero": -np.inf, "rank one": 0}[case]
    np.testing.assert_allclose(found.values[1], second, atol=1e-6)


def test_without_the_rule_there_is_a_value_that_does_not_exist():
    """The control of the cases above: matfree's own iteration."""
    from matfree import decomp

    _, matrix, *_ = decomp.tridiag_sym(3)(lambda x: x, jnp.ones(6))
    assert np.linalg.eigvalsh(matrix)[-1] > 1.5


def test_smallest_values_that_are_already_among_the_largest_do_not_exist():
    curvature = of_matrix(np.diag([1.0, 2.0, 3.0]))
    options = {"num": 2, "num_smallest": 2, "num_matvecs": 3}
    with pytest.raises(ValueError, match="too few"):
        eigenpairs(curvature, KEY, **options)
    options["num_smallest"] = 1
    # A start in two of the dimensions.
    start = jnp.array([1.0, 1.0, 0.0])
    found = eigenpairs(curvature, start, **options)
    np.testing.assert_allclose(found.values, [2.0, 1.0, -np.inf], rtol=1e-6)
    assert np.isinf(found.residuals[2])


@pytest.mark.parametrize("method", METHODS)
def test_single_precision(method):
    spectrum = np.append(np.linspace(-1, 1, 56), [3.0, 5.0, 10.0, 50.0])
    curvature = of_matrix(np.diag(spectrum), "float32")
    for steps in (10, 40):
        found = eigenpairs(
            curvature, KEY, num=2, num_matvecs=steps, method=method
        )
        assert found.values.dtype == jnp.float32
        assert found.values[1] < 40  # No second copy of the largest.
        # A few roundings.
        np.testing.assert_allclose(found.values[0], 50.0, rtol=1e-6)


def test_earlier_pairs_do_not_hide_a_new_top_eigenvalue(x64):
    pairs = eigenpairs(of_matrix(np.diag([5.0, 1, 2, 3])), KEY, num_matvecs=4)
    new = of_matrix(np.diag([5.0, 9, 2, 3]))
    found = eigenpairs(new, pairs, num_matvecs=4)
    np.testing.assert_allclose(found.values, [9.0], rtol=1e-10)
    alone = jax.tree.map(lambda x: x[0], pairs.vectors).round(6)
    assert eigenpairs(new, alone, num_matvecs=4).values[0] < 6


def test_the_largest_value_is_not_the_largest_modulus(x64):
    curvature = of_matrix(np.diag([-5.0, -1.0, 1.0, 2.0, 3.0]))
    for method in METHODS:
        found = eigenpairs(curvature, KEY, num_matvecs=5, method=method)
        np.testing.assert_allclose(found.values, [3.0], rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_non_finite_curvature_is_nan_without_an_exception(method):
    curvature = of_matrix(np.full((4, 4), np.nan))
    found = eigenpairs(curvature, KEY, num=2, num_matvecs=4, method=method)
    assert np.isnan(found.values).all()
    assert np.isinf(found.residuals).all()
    if method == "lanczos":
        spectrum = spectral_density(curvature, KEY, num_matvecs=4)
        assert np.isnan(spectrum.values).any(1).all()
