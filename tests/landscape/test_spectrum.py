"""Eigenvalues, densities and traces against dense matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from jax.flatten_util import ravel_pytree

from psi_optax import ScaleGroup
from psi_optax.landscape import (
    Curvature,
    dataset_hessian,
    eigenpairs,
    hessian,
    spectral_density,
    tangent_space,
    trace,
)
from tests.landscape.network import (
    GROUPS,
    TANGENTS,
    dense,
    loss,
    make_net,
    rescaled,
)

KEY = jax.random.key(1)
METHODS = ("lanczos", "arpack")


def of_matrix(matrix, dtype=None):
    """Return the curvature of a quadratic loss."""
    matrix = jnp.asarray(matrix, dtype)
    return hessian(lambda w: w @ matrix @ w / 2, jnp.zeros_like(matrix[0]))


@pytest.fixture(scope="module")
def net():
    """The curvature of the network, and its eigenvalues, descending."""
    from psi_optax._compat import enable_x64

    with enable_x64(True):
        params, args = make_net()
        curvature = hessian(loss, params, *args, groups=GROUPS)
        values = np.linalg.eigvalsh(dense(curvature, params))[::-1]
        return curvature, values, params


@pytest.mark.parametrize("method", METHODS)
def test_extreme_eigenvalues_are_those_of_the_dense_matrix(method, net, x64):
    curvature, values, _ = net
    found = eigenpairs(
        curvature,
        KEY,
        num=2,
        num_smallest=2,
        num_matvecs=50,
        method=method,
        tolerance=0.0,
    )
    expected = values[[0, 1, -2, -1]]
    errors = np.abs(found.values - expected)
    assert (errors <= found.residuals + 1e-14).all()
    # The error of a value is of the order of its squared residual.
    np.testing.assert_allclose(found.values, expected, rtol=1e-8)
    # The control: the largest modulus is not among the largest values.
    assert -values[-1] > values[1]


def test_the_largest_value_is_not_the_largest_modulus(x64):
    curvature = of_matrix(np.diag([-5.0, -1.0, 1.0, 2.0, 3.0]))
    for method in METHODS:
        found = eigenpairs(curvature, KEY, num_matvecs=5, method=method)
        np.testing.assert_allclose(found.values, [3.0], rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_vectors_are_orthonormal_tangent_and_have_their_residuals(
    method, net, x64
):
    curvature, _, params = net
    options = {"num": 3, "num_smallest": 1, "num_matvecs": 30}
    pairs = eigenpairs(curvature, KEY, method=method, **options)
    assert jax.tree.structure(pairs.vectors) == jax.tree.structure(params)
    rows = jax.vmap(lambda u: ravel_pytree(u)[0])(pairs.vectors)
    np.testing.assert_allclose(rows @ rows.T, np.eye(4), atol=1e-10)
    for i in range(4):
        u = jax.tree.map(lambda x, i=i: x[i], pairs.vectors)
        product, projected = (
            ravel_pytree(f(u))[0]
            for f in (curvature.matvec, curvature.space.project)
        )
        np.testing.assert_allclose(projected, rows[i], atol=1e-12)
        rest = jnp.linalg.norm(product - pairs.values[i] * rows[i])
        np.testing.assert_allclose(rest, pairs.residuals[i], 1e-6, 1e-12)


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


def test_without_the_rule_there_is_a_value_that_does_not_exist():
    """The control of the cases above: matfree's own iteration."""
    from matfree import decomp

    _, matrix, *_ = decomp.tridiag_sym(3)(lambda x: x, jnp.ones(6))
    assert np.linalg.eigvalsh(matrix)[-1] > 1.5


def test_all_dimensions_of_the_network(net, x64):
    curvature, values, _ = net
    found = eigenpairs(curvature, KEY, num_matvecs=TANGENTS)
    np.testing.assert_allclose(found.values, values[:1], rtol=1e-12)
    with pytest.raises(ValueError, match=f"num_matvecs={TANGENTS + 1} exceeds"):
        eigenpairs(curvature, KEY, num_matvecs=TANGENTS + 1)


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


def test_it_works_under_jit_and_vmap(net, x64):
    _, _, params = net
    args = make_net().args

    def top(params):
        curvature = hessian(loss, params, *args, groups=GROUPS)
        return eigenpairs(curvature, KEY, num_matvecs=12).values[0]

    alone = jax.jit(top)(params)
    both = jax.tree.map(
        lambda x, y: jnp.stack([x, y]), params, rescaled(params, 4.0, 0.5)
    )
    # An invariant quantity, to rounding.
    np.testing.assert_allclose(jax.vmap(top)(both), alone, rtol=1e-9)
    np.testing.assert_allclose(top(params), alone, rtol=1e-9)


def test_a_start_is_a_key_a_step_or_earlier_pairs(net, x64):
    curvature, values, _ = net
    first = eigenpairs(curvature, jax.random.PRNGKey(0), num_matvecs=60)
    step = jax.tree.map(lambda x: x[0], first.vectors)
    error = {
        name: values[0] - eigenpairs(curvature, start, num_matvecs=4).values[0]
        for name, start in {"key": KEY, "step": step, "pairs": first}.items()
    }
    assert abs(error["step"]) < 1e-10
    assert error["pairs"] < 1e-4 * values[0]
    # The control: as many products from anywhere.
    assert error["key"] > 0.01 * values[0]
    # Pairs that became non-finite are a random start.
    spoiled = first._replace(
        vectors=jax.tree.map(lambda x: x * jnp.nan, first.vectors)
    )
    assert jnp.isfinite(eigenpairs(curvature, spoiled).values[0])


def test_earlier_pairs_do_not_hide_a_new_top_eigenvalue(x64):
    pairs = eigenpairs(of_matrix(np.diag([5.0, 1, 2, 3])), KEY, num_matvecs=4)
    new = of_matrix(np.diag([5.0, 9, 2, 3]))
    found = eigenpairs(new, pairs, num_matvecs=4)
    np.testing.assert_allclose(found.values, [9.0], rtol=1e-10)
    alone = jax.tree.map(lambda x: x[0], pairs.vectors).round(6)
    assert eigenpairs(new, alone, num_matvecs=4).values[0] < 6


@pytest.mark.parametrize("method", METHODS)
def test_non_finite_curvature_is_nan_without_an_exception(method):
    curvature = of_matrix(np.full((4, 4), np.nan))
    found = eigenpairs(curvature, KEY, num=2, num_matvecs=4, method=method)
    assert np.isnan(found.values).all()
    assert np.isinf(found.residuals).all()
    if method == "lanczos":
        spectrum = spectral_density(curvature, KEY, num_matvecs=4)
        assert np.isnan(spectrum.values).any(1).all()


def test_starts_have_no_radial_part(x64):
    """Here a radial direction is flat, and all others are curved down."""

    def bowl(w):
        return (w[0] / jnp.linalg.norm(w)) ** 2

    params = jnp.array([1.0, 1e-3, 0.0, 0.0])
    curvature = hessian(bowl, params, groups=ScaleGroup(0))
    # Projected: every direction is curved down, by about 2.
    start = jnp.array([1.0, 1.0, 1.0, 0.5])
    found = eigenpairs(curvature, start, num_matvecs=2)
    assert found.values[0] < -1.9
    # The control: the plain operator sees its kernel.
    raw = Curvature(curvature.matvec, tangent_space(params), traced=True)
    assert eigenpairs(raw, start, num_matvecs=2).values[0] > -0.1


def test_the_density_has_the_moments_of_the_spectrum(net, x64):
    curvature, values, _ = net
    found = spectral_density(curvature, KEY, num_probes=64, num_matvecs=20)
    assert found.size == TANGENTS
    np.testing.assert_allclose(found.weights.sum(1), 1, rtol=1e-12)
    for power in (1, 2):
        rows = (found.weights * found.values**power).sum(1)
        exact = (values**power).sum() / TANGENTS
        deviation = rows.std(ddof=1) / 8
        assert abs(rows.mean() - exact) < 3 * deviation
    # The extremes of 64 probes are those of the spectrum.
    np.testing.assert_allclose(found.values.max(), values[0], rtol=1e-3)


def test_the_density_of_few_values_is_exact():
    curvature = of_matrix(np.diag([1.0, 1, 1, 5, 5, 5]))
    found = spectral_density(curvature, KEY, num_probes=3, num_matvecs=5)
    present = found.weights > 1e-6
    assert (present.sum(1) == 2).all()
    values = np.asarray(found.values)[..., None]
    near = np.abs(values - np.array([0.0, 1.0, 5.0])).min(-1)
    np.testing.assert_allclose(near, 0, atol=1e-5)
    np.testing.assert_allclose(found.weights.sum(1), 1, rtol=1e-6)


def test_the_trace_is_within_its_error(net, x64):
    curvature, values, _ = net
    found = trace(curvature, KEY, num_probes=200)
    assert abs(found.value - values.sum()) < 3 * found.error
    assert found.error < 0.1 * np.abs(values).sum()
    # Of the identity on the tangent space every probe is exact: the number of
    # its dimensions, without the 12 radii.
    identity = Curvature(curvature.space.project, curvature.space, traced=True)
    exact = trace(identity, KEY, num_probes=2)
    np.testing.assert_allclose(exact.value, TANGENTS, rtol=1e-12)
    assert exact.error < 1e-10
    traced = jax.jit(lambda key: trace(curvature, key, num_probes=4))(KEY)
    eager = trace(curvature, KEY, num_probes=4)
    np.testing.assert_allclose(traced, eager, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"method": "power"}, "method='power'"),
        ({"num": 0}, "num=0"),
        ({"num_smallest": -1}, "num_smallest=-1"),
        ({"num": 4, "num_smallest": 1, "num_matvecs": 4}, "too few"),
        ({"num": 4, "num_matvecs": 4, "method": "arpack"}, "too few"),
        ({"tolerance": -1.0}, "tolerance"),
        ({}, "num_matvecs=32 exceeds the 4 dimensions"),
    ],
)
def test_bad_arguments(options, match):
    curvature = of_matrix(np.eye(4))
    with pytest.raises(ValueError, match=match):
        eigenpairs(
            curvature, KEY, **({"num_matvecs": 4} | options) if options else {}
        )


def test_a_data_set_has_no_lanczos_iteration():
    curvature = dataset_hessian(lambda w, x: w @ w * x, jnp.ones(3), [1.0])
    for call in (
        lambda: eigenpairs(curvature, KEY, num_matvecs=3, method="lanczos"),
        lambda: spectral_density(curvature, KEY, num_matvecs=3),
    ):
        with pytest.raises(ValueError, match="average_loss"):
            call()
    with pytest.raises(ValueError, match="num_probes=1"):
        trace(curvature, KEY, num_probes=1)


@pytest.mark.parametrize("module", ["matfree", "scipy.sparse"])
def test_a_missing_library_is_named_with_its_extra(module, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    method = "lanczos" if module == "matfree" else "arpack"
    with pytest.raises(ImportError, match=r"psi_optax\[landscape\]"):
        eigenpairs(of_matrix(np.eye(3)), KEY, num_matvecs=3, method=method)
