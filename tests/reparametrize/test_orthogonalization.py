"""orthogonal: values, derivatives where they are delicate, blocks, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax import ScaleGroup
from psi_optax.reparametrize import orthogonal, unit
from psi_optax.reparametrize._orthogonal_factors import (
    newton_schulz,
    polar_factor,
)
from tests.reparametrize.problem import COLUMNS, FILTERS, draw, gradient, rows

pytestmark = pytest.mark.usefixtures("x64")

METHODS = ("newton_schulz", "svd", "qr")
POLAR = METHODS[:2]
# Twenty-five products of matrices with 36 columns of numbers below 1.
CLOSE = {"rtol": 0, "atol": 1e-13}


def polar(matrix):
    u, _, vt = np.linalg.svd(matrix, full_matrices=False)
    return u @ vt


def center(matrix):
    return matrix - matrix.mean(axis=1, keepdims=True)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("centered", [True, False])
def test_rows_are_orthonormal(method, centered):
    kernel = draw(3, 3, 4, 8)
    got = rows(orthogonal(kernel, FILTERS, method=method, centered=centered))
    np.testing.assert_allclose(got @ got.T, np.eye(8), **CLOSE)
    means = np.abs(got.sum(axis=1)).max()
    assert means < 1e-13 if centered else means > 0.1
    z = center(rows(kernel)) if centered else rows(kernel)
    if method == "qr":
        q, r = np.linalg.qr(z.T)
        expected = (q * np.sign(np.diag(r))).T
    else:
        expected = polar(z)
    np.testing.assert_allclose(got, expected, **CLOSE)


def test_the_gain_is_the_norm():
    kernel = draw(9, 6)
    got = rows(orthogonal(kernel, COLUMNS, gain=1.5))
    np.testing.assert_allclose(got @ got.T, 2.25 * np.eye(6), **CLOSE)


def gram_form(z, steps):
    """Iterate on the inverse root of the Gram matrix, as ONI and IterNorm."""
    square = z @ z.T
    size = np.linalg.norm(square)
    root = np.eye(len(z))
    for _ in range(steps):
        root = 1.5 * root - 0.5 * root @ root @ root @ (square / size)
    return root @ z / np.sqrt(size)


def error(matrix):
    return np.abs(matrix @ matrix.T - np.eye(len(matrix))).max()


def test_the_iteration_stays_where_the_gram_form_diverges():
    z = rows(draw(9, 6))
    unit_z = jnp.asarray(z / np.linalg.norm(z))
    ours = {n: error(np.asarray(newton_schulz(unit_z, n))) for n in (5, 20, 60)}
    assert ours[5] > 1e-3
    assert max(ours[20], ours[60]) < 1e-14
    with np.errstate(all="ignore"):
        grams = [error(gram_form(z, n)) for n in range(1, 41)]
    # It comes close, and rounding carries it off.
    assert min(grams) < 1e-2
    assert not grams[-1] < 1e6


def test_more_steps_where_matrices_are_nearly_square():
    wide, square = draw(64, 16), draw(17, 16)
    default = error(rows(orthogonal(wide, COLUMNS)))
    few = error(rows(orthogonal(wide, COLUMNS, steps=12)))
    assert default == few < 1e-9
    default = error(rows(orthogonal(square, COLUMNS, centered=False)))
    few = error(rows(orthogonal(square, COLUMNS, centered=False, steps=12)))
    assert default < few / 100


# -- derivatives -------------------------------------------------------------


def differences(function, kernel, step=1e-5):
    """Return the gradient by central differences."""
    found = np.zeros(kernel.shape)
    cotangent = np.asarray(draw(*kernel.shape, seed=7))
    for index in np.ndindex(kernel.shape):
        up, down = (
            function(kernel.at[index].add(sign * step)) for sign in (1, -1)
        )
        found[index] = np.vdot(np.asarray(up - down), cotangent) / (2 * step)
    return found


@pytest.mark.parametrize("method", METHODS)
def test_derivatives_at_orthonormal_filters(method):
    """Where singular values are equal, as after orthogonal initialization."""
    kernel = jnp.asarray(np.linalg.qr(draw(6, 3))[0])

    def function(k):
        return orthogonal(k, COLUMNS, centered=False, method=method)

    expected = differences(jax.jit(function), kernel)
    # Central differences: third derivatives of about one times 1e-10, and
    # rounding of 1e-15 over 1e-5.
    np.testing.assert_allclose(
        gradient(function, kernel), expected, rtol=0, atol=2e-9
    )


def test_the_derivative_of_jax_is_wrong_there():
    kernel = jnp.asarray(np.linalg.qr(draw(6, 3))[0])

    def by_svd(k):
        u, _, vt = jnp.linalg.svd(k, full_matrices=False)
        return u @ vt

    expected = gradient(polar_factor, kernel.T).T
    found = gradient(by_svd, kernel.T).T
    assert not np.allclose(found, expected, rtol=0, atol=1e-3)


def test_methods_agree_on_derivatives_elsewhere():
    kernel = draw(9, 4)
    found = [
        gradient(lambda k, m=m: orthogonal(k, COLUMNS, method=m), kernel)
        for m in POLAR
    ]
    np.testing.assert_allclose(*found, rtol=0, atol=1e-12)
    assert np.abs(found[0]).max() > 0.1


@pytest.mark.parametrize("method", POLAR)
def test_equal_filters(method):
    """They share one direction, at 1/sqrt 2 of its length each."""
    kernel = draw(36, 5)
    kernel = kernel.at[:, 1].set(kernel[:, 3])

    def function(k):
        return orthogonal(k, COLUMNS, method=method)

    got = rows(function(kernel))
    norms = np.linalg.norm(got, axis=1)
    expected = np.where([False, True, False, True, False], 0.5**0.5, 1.0)
    np.testing.assert_allclose(norms, expected, rtol=0, atol=1e-6)
    # Newton-Schulz multiplies a difference by 1.5 in each of 12 steps, and
    # divides by the norm of all.
    assert np.abs(gradient(function, kernel)).max() < 1.5**12
    exact = gradient(lambda k: polar_by_eigenvalues(k.T).T, kernel)
    assert not np.abs(exact).max() < 1e6


def polar_by_eigenvalues(z):
    values, vectors = jnp.linalg.eigh(z @ z.T)
    return (vectors / jnp.sqrt(values)[None]) @ (vectors.T @ z)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("centered", [True, False])
def test_filters_without_a_direction(method, centered):
    kernel = draw(9, 5).at[:, 1].set(0).at[:, 3].set(0)
    if centered:
        kernel = kernel.at[:, 3].set(0.1)

    def function(k):
        return orthogonal(k, COLUMNS, method=method, centered=centered)

    got = rows(function(kernel))
    np.testing.assert_array_equal(got[[1, 3]], 0)
    others = got[[0, 2, 4]]
    np.testing.assert_allclose(others @ others.T, np.eye(3), **CLOSE)
    alone = rows(function(kernel[:, jnp.array([0, 2, 4])]))
    # Three filters of nine weights are as far from done in 25 steps.
    np.testing.assert_allclose(others, alone, rtol=0, atol=1e-12)
    found = gradient(function, kernel)
    assert jnp.isfinite(found).all()
    assert np.abs(found).max() < 100
    nothing = jnp.zeros((9, 5))
    np.testing.assert_array_equal(function(nothing), 0)
    assert jnp.isfinite(gradient(function, nothing)).all()


# -- invariance --------------------------------------------------------------


def inner(a, b):
    return float(jnp.vdot(a, b))


def test_no_singular_value_matters():
    kernel = draw(9, 6)

    def function(k):
        return orthogonal(k, COLUMNS, centered=False)

    found = gradient(function, kernel)
    assert abs(inner(kernel, found)) < 1e-13
    u, _, vt = np.linalg.svd(rows(kernel), full_matrices=False)
    along = np.diag(u.T @ rows(found) @ vt.T)
    np.testing.assert_allclose(along, 0, rtol=0, atol=1e-13)
    # The scale of one filter does.
    each = np.sum(rows(kernel) * rows(found), axis=1)
    assert np.abs(each).max() > 1e-3


def test_scales_of_filters_matter_but_to_gram_schmidt_and_of_units():
    kernel, factors = draw(9, 6), jnp.array([[1.0, 2, 4, 1, 0.5, 8]])

    def change(function):
        return np.abs(function(kernel * factors) - function(kernel)).max()

    assert change(lambda k: orthogonal(k, COLUMNS)) > 0.1
    assert change(lambda k: orthogonal(unit(k, COLUMNS), COLUMNS)) < 1e-14
    assert change(lambda k: orthogonal(k, COLUMNS, method="qr")) < 1e-14


@pytest.mark.parametrize("method", METHODS)
def test_a_power_of_two_changes_no_bit(method):
    kernel = draw(9, 6).astype(jnp.float32)
    expected = orthogonal(kernel, COLUMNS, method=method)
    got = orthogonal(16 * kernel, COLUMNS, method=method)
    np.testing.assert_array_equal(got, expected)
    assert np.abs(orthogonal(kernel**3, COLUMNS) - expected).max() > 1e-3


# -- blocks ------------------------------------------------------------------


def test_more_groups_than_weights_are_cut_into_blocks():
    kernel = draw(5, 8)
    got = rows(orthogonal(kernel, COLUMNS, steps=60)).reshape(2, 4, 5)
    for block, own in zip(got, np.split(rows(kernel), 2), strict=True):
        np.testing.assert_allclose(block, polar(center(own)), atol=1e-9)
    assert error(got.reshape(8, 5)) > 0.1
    four = rows(orthogonal(kernel, COLUMNS, blocks=4)).reshape(4, 2, 5)
    np.testing.assert_allclose(
        four @ four.swapaxes(1, 2),
        np.broadcast_to(np.eye(2), (4, 2, 2)),
        **CLOSE,
    )


def test_groups_in_blocks_of_an_axis_are_rows():
    kernel = draw(5, 6)
    group = ScaleGroup((0, 1), blocks={1: 3})
    got = np.asarray(orthogonal(kernel, group)).reshape(5, 3, 2)
    got = got.transpose(1, 0, 2).reshape(3, 10)
    np.testing.assert_allclose(got @ got.T, np.eye(3), **CLOSE)
    wanted = np.asarray(kernel).reshape(5, 3, 2).transpose(1, 0, 2)
    wanted = polar(center(wanted.reshape(3, 10)))
    np.testing.assert_allclose(got, wanted, atol=1e-12)


def test_blocks_that_do_not_fit():
    params, groups = {"k": draw(5, 8)}, {"k": COLUMNS}
    for blocks in (1, 3, 16):
        with pytest.raises(ValueError, match=r"'k' of shape \(5, 8\).* 2\."):
            orthogonal(params, groups, blocks=blocks)
    # Five orthonormal rows of five weights have means.
    square = {"k": draw(5, 5)}
    with pytest.raises(ValueError, match="blocks=1.* 5"):
        orthogonal(square, groups, blocks=1)
    orthogonal(square, groups, blocks=1, centered=False)
    with pytest.raises(ValueError, match=r"'k'.*centered=False"):
        orthogonal({"k": draw(1, 5)}, groups)


def test_other_errors():
    params, groups = {"k": draw(5, 4)}, {"k": COLUMNS}
    with pytest.raises(ValueError, match="method='cayley'"):
        orthogonal(params, groups, method="cayley")
    with pytest.raises(ValueError, match="steps=5"):
        orthogonal(params, groups, method="svd", steps=5)
    with pytest.raises(ValueError, match="steps=0"):
        orthogonal(params, groups, steps=0)
    for blocks in (0, 2.0):
        with pytest.raises(ValueError, match="blocks"):
            orthogonal(params, groups, blocks=blocks)
    with pytest.raises(TypeError, match="centered"):
        orthogonal(params, groups, centered=1)


def test_the_whole_matrix_is_needed():
    params = {"k": draw(5, 4), "b": draw(4)}
    tied = {"k": ScaleGroup(0, tie="t"), "b": ScaleGroup((), tie="t")}
    with pytest.raises(NotImplementedError, match="'[bk]' of shape.*tied"):
        orthogonal(params, tied)
    named = {"k": ScaleGroup(0, axis_name="d"), "b": None}
    with pytest.raises(NotImplementedError, match="'k' of shape.*axis_name"):
        orthogonal(params, named)
    orthogonal(params, {"k": ScaleGroup(0, tie="alone"), "b": None})
