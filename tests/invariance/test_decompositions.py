"""Decompositions of matrices, and windows: each found, beside a control."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.lax.linalg import triangular_solve
from jax.scipy.linalg import solve_triangular

from psi_optax import ScaleGroup
from tests.invariance.losses import report_on, shapes, unit
from tests.invariance.programs import norm

X, W = shapes(x=(8, 6), w=(6, 4)).values()
MATRIX = ScaleGroup((0, 1))
NUMBERS = jnp.cos(jnp.arange(32.0)).reshape(8, 4)


def found(function):
    """Return the groups of w in the total of a function of w and x."""
    return report_on(lambda p, x: function(p["w"], x), {"w": W}, X)["w"].group


def by_triangle(w, x):
    triangle = jnp.linalg.cholesky(w.T @ w)
    return x @ solve_triangular(triangle, w.T, lower=True).T


EYE = jnp.eye(4)


def triangle_of_mixture(w):
    """A sum with the transpose of a product that one side scales."""
    product = w.T @ unit(w, 0)
    return jnp.linalg.cholesky(product + product.T + w.T @ unit(w, (0, 1)))


def scaled_rows(w):
    """Return a matrix whose rows scale, and whose columns do not."""
    # With a diagonal that dominates, so that it has a triangle.
    return w.T @ unit(w, 0) * (0.1 + 0.9 * EYE)


def solved(w, **options):
    """Return the inverse of a triangle, transposed or not, times numbers."""
    triangle = jnp.linalg.cholesky(w.T @ w)
    return solve_triangular(triangle, NUMBERS[:4], lower=True, **options)


def solved_from_the_right(w, **options):
    triangle = jnp.linalg.cholesky(w.T @ w)
    return triangular_solve(
        triangle, NUMBERS[:4], left_side=False, lower=True, **options
    )


def by_eigenvectors(w, x):
    values, vectors = jnp.linalg.eigh(w.T @ w)
    return x @ w @ (vectors / jnp.sqrt(values)[None])


def triangle_over(size, w):
    return NUMBERS @ (jnp.linalg.qr(w)[1] / size)


def divided(order):
    return lambda w, x: x @ (w / jnp.linalg.norm(w, ord=order))


INVARIANT = {
    "qr": (lambda w, x: x @ jnp.linalg.qr(w)[0], ScaleGroup(0)),
    "qr, complete": (
        lambda w, x: x @ jnp.linalg.qr(w, mode="complete")[0],
        ScaleGroup(0),
    ),
    "qr of the transpose": (
        lambda w, x: x[:, :4] @ jnp.linalg.qr(w.T)[0],
        ScaleGroup(1),
    ),
    "columns of r": (lambda w, x: triangle_over(norm(w, 0), w), ScaleGroup(0)),
    "rows of r": (lambda w, x: triangle_over(norm(w[:4], 1), w), MATRIX),
    "spectral norm": (divided(2), MATRIX),
    "nuclear norm": (divided("nuc"), MATRIX),
    "svd": (lambda w, x: x @ jnp.linalg.svd(w, full_matrices=False)[0], MATRIX),
    "cholesky": (by_triangle, ScaleGroup(0)),
    "rows of a triangle": (
        lambda w, x: NUMBERS @ unit(jnp.linalg.cholesky(w.T @ w), 1),
        ScaleGroup(0),
    ),
    "columns of a triangle": (
        lambda w, x: NUMBERS @ unit(jnp.linalg.cholesky(w.T @ w), 0),
        MATRIX,
    ),
    "cholesky of a sum": (
        lambda w, x: NUMBERS @ unit(jnp.linalg.cholesky(w.T @ w + EYE), 0),
        None,
    ),
    "cholesky of a mixture": (
        lambda w, x: NUMBERS @ unit(triangle_of_mixture(w), 1),
        MATRIX,
    ),
    "a triangle of what is not symmetric": (
        lambda w, x: (
            NUMBERS
            @ unit(
                jnp.linalg.cholesky(scaled_rows(w), symmetrize_input=False), 1
            )
        ),
        MATRIX,
    ),
    "a triangle of a mixture over its scale": (
        lambda w, x: triangle_of_mixture(w) / jnp.sqrt(norm(w, (0, 1))),
        MATRIX,
    ),
    "solved from the left, transposed": (
        lambda w, x: unit(solved(w, trans=1), 1),
        ScaleGroup(0),
    ),
    "rows that are mixed": (lambda w, x: unit(solved(w), 1), MATRIX),
    "solved from the right": (
        lambda w, x: unit(solved_from_the_right(w), 0),
        ScaleGroup(0),
    ),
    "solved from the right, transposed": (
        lambda w, x: unit(solved_from_the_right(w, transpose_a=True), 0),
        MATRIX,
    ),
    "rows of the right side": (
        lambda w, x: unit(solved_from_the_right(w, transpose_a=True), 1),
        MATRIX,
    ),
    "eigh": (by_eigenvectors, MATRIX),
    "a triangular solve": (
        lambda w, x: solve_triangular(w[:4], w[:4].T),
        MATRIX,
    ),
}

NOT_INVARIANT = {
    "r": lambda w, x: x[:, :4] @ jnp.linalg.qr(w)[1],
    "singular values": lambda w, x: jnp.linalg.svd(w)[1],
    "eigenvalues": lambda w, x: jnp.linalg.eigh(w.T @ w)[0],
    "a triangle": lambda w, x: jnp.linalg.cholesky(w.T @ w),
    "a triangle over w squared": lambda w, x: (
        jnp.linalg.cholesky(w.T @ w) / jnp.sum(w * w)
    ),
    "a triangle of a mixture over w": lambda w, x: (
        triangle_of_mixture(w) / norm(w, (0, 1))
    ),
    "a triangular solve": lambda w, x: solve_triangular(w[:4], x.T[:4]),
    "ones on the diagonal": lambda w, x: solve_triangular(
        w[:4], w[:4].T, unit_diagonal=True
    ),
}


@pytest.mark.parametrize("name", INVARIANT)
def test_decompositions_that_lose_the_scale(name):
    function, group = INVARIANT[name]
    assert found(function) == group


@pytest.mark.parametrize(
    "name", [name for name in INVARIANT if "triang" in name or "sol" in name]
)
def test_the_scales_of_columns_in_numbers(name):
    """All matter together at most; one by one where that is the answer."""
    function, group = INVARIANT[name]
    random = np.random.RandomState(0)
    w = random.normal(size=W.shape) + 2 * np.eye(*W.shape)
    w, x = jnp.float32(w), jnp.float32(random.normal(size=X.shape))

    def change(factors):
        moved = function(w * jnp.float32(factors), x) - function(w, x)
        return float(jnp.abs(moved).max())

    # A solution divides some ten roundings by values of down to 0.1.
    same = 1e-5
    assert (change(1.7) < same) == (group is not None)
    assert (change([[1.0, 2.0, 0.4, 1.5]]) < same) == (group == ScaleGroup(0))


@pytest.mark.parametrize("name", NOT_INVARIANT)
def test_decompositions_that_keep_it(name):
    assert found(NOT_INVARIANT[name]) is None


def pooled(h):
    return nn.max_pool(h[..., None], (2, 1), (2, 1))[..., 0]


def cotangents(h, weights):
    """Weights where the largest of a window is, and zeros elsewhere."""
    return jax.vjp(pooled, h)[1](weights)[0]


def tangents(h, weights):
    """Weights picked by the largest of each window."""
    return jax.jvp(pooled, (h,), (weights,))[1]


def test_of_a_window_only_the_largest_is_seen():
    def spread(w, x):
        return cotangents(x @ w, NUMBERS[:4])

    def picked(w, x):
        return tangents(x @ w, NUMBERS)

    for function in (spread, picked):
        assert found(function) == ScaleGroup(0)
        # Beside what is compared, w itself.
        assert found(lambda w, x, f=function: f(w, x) * jnp.sum(w)) is None


def test_a_window_moves_its_weights_unchanged():
    def spread(w, x):
        return cotangents(NUMBERS, (x @ w)[:4])

    def picked(w, x):
        return tangents(NUMBERS, x @ w)

    for function in (spread, picked):
        assert found(lambda w, x, f=function: unit(f(w, x), 0)) == ScaleGroup(0)
        assert found(function) is None
