"""Eigenvalues of a network against its dense Hessian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from psi_optax import ScaleGroup
from psi_optax.landscape import (
    Curvature,
    eigenpairs,
    hessian,
    tangent_space,
)
from tests.landscape.network import (
    GROUPS,
    TANGENTS,
    loss,
    make_net,
    of_matrix,
    rescaled,
)

KEY = jax.random.key(1)
METHODS = ("lanczos", "arpack")


@pytest.mark.parametrize("method", METHODS)
def test_extreme_eigenvalues_are_those_of_the_dense_matrix(method, curved, x64):
    curvature, values, _ = curved
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


@pytest.mark.parametrize("method", METHODS)
def test_vectors_are_orthonormal_tangent_and_have_their_residuals(
    method, curved, x64
):
    curvature, _, params = curved
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


def test_all_dimensions_of_the_network(curved, x64):
    curvature, values, _ = curved
    found = eigenpairs(curvature, KEY, num_matvecs=TANGENTS)
    np.testing.assert_allclose(found.values, values[:1], rtol=1e-12)
    with pytest.raises(ValueError, match=f"num_matvecs={TANGENTS + 1} exceeds"):
        eigenpairs(curvature, KEY, num_matvecs=TANGENTS + 1)


def test_it_works_under_jit_and_vmap(curved, x64):
    _, _, params = curved
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


def test_a_start_is_a_key_a_step_or_earlier_pairs(curved, x64):
    curvature, values, _ = curved
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


@pytest.mark.parametrize("module", ["matfree", "scipy.sparse"])
def test_a_missing_library_is_named_with_its_extra(module, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    method = "lanczos" if module == "matfree" else "arpack"
    with pytest.raises(ImportError, match=r"psi_optax\[landscape\]"):
        eigenpairs(of_matrix(np.eye(3)), KEY, num_matvecs=3, method=method)


@pytest.mark.parametrize("method", ["lanczos", "arpack"])
def test_a_start_that_leads_nowhere_is_an_error(method):
    w = jnp.array([3.0, 4.0, 0.0])
    curvature = hessian(lambda w: w[0] ** 2 / (w @ w), w, groups=ScaleGroup(0))
    for start in (jnp.zeros(3), 0 * w):
        with pytest.raises(ValueError, match="random key"):
            eigenpairs(curvature, start, num_matvecs=2, method=method)
    found = eigenpairs(
        curvature, jax.random.key(0), num_matvecs=2, method=method
    )
    assert np.isfinite(found.residuals[0])
