"""Densities and traces against dense matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax.landscape import (
    Curvature,
    dataset_hessian,
    eigenpairs,
    spectral_density,
    trace,
)
from tests.landscape.network import (
    TANGENTS,
    of_matrix,
)

KEY = jax.random.key(1)
METHODS = ("lanczos", "arpack")


def test_the_density_has_the_moments_of_the_spectrum(curved, x64):
    curvature, values, _ = curved
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


def test_the_trace_is_within_its_error(curved, x64):
    curvature, values, _ = curved
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
