"""The PSI manifold: metric, gradient, retraction.

Yi, "Accelerating training of batch normalization: a manifold perspective"
(arXiv 2101.02916, UAI 2022), eqs. 6 to 8. All in double precision, on networks
whose groups are columns, tied leaves and blocks.
"""

import jax
import numpy as np
import optax
import pytest

import psi_optax
from psi_optax import ScaleGroup
from tests.theory.networks import bn_mlp, mixed_network
from tests.theory.scales import dot, norms, powers_of_ten, rescaled
from tests.theory.training import first_update, gradient_of

pytestmark = pytest.mark.usefixtures("x64")

# Sums of some 200 terms, each rounded to 1.1e-16 of its size.
ROUNDING = 1e-12


def gradient(problem, params, batch=0):
    batch = jax.tree.map(lambda x: x[batch], problem.batches)
    return gradient_of(problem.loss, params, batch)


def pair(problem):
    """Params, and the same with groups rescaled by 10^U(-2, 2)."""
    factors = powers_of_ten(problem.ids)
    return problem.params, rescaled(problem.params, problem.ids, factors)


def by_norm(problem, params, updates):
    """The updates times |w|, by the package."""
    tx = psi_optax.transforms.scale_by_group_norm(problem.groups)
    return [first_update(tx, u, params) for u in updates]


@pytest.mark.parametrize("make", [bn_mlp, mixed_network])
def test_metric_of_gradients_does_not_see_the_scale(make):
    # <r g_1, r g_2> of two batches, which is <xi_1, xi_2>/|w|^2 of the
    # Riemannian gradients xi = r^2 g (eqs. 6 and 7).
    problem = make()
    products = []
    for params in pair(problem):
        raw = [gradient(problem, params, batch) for batch in (0, 1)]
        products.append(dot(*by_norm(problem, params, raw), problem.ids))
        np.testing.assert_allclose(
            products[-1],
            dot(*raw, problem.ids) * norms(params, problem.ids) ** 2,
            rtol=ROUNDING,
            atol=ROUNDING,
        )
    np.testing.assert_allclose(*products, rtol=ROUNDING, atol=ROUNDING)


def test_product_of_raw_gradients_does_see_the_scale():
    problem = mixed_network()
    raw, scaled = (
        dot(gradient(problem, params), gradient(problem, params), problem.ids)
        for params in pair(problem)
    )
    assert np.abs(scaled / raw - 1).max() > 1


@pytest.mark.parametrize("make", [bn_mlp, mixed_network])
def test_gradient_is_of_degree_minus_one(make):
    problem = make()
    factors = powers_of_ten(problem.ids)
    raw, scaled = (gradient(problem, params) for params in pair(problem))
    expected = rescaled(raw, problem.ids, 1 / factors)
    size = norms(expected, problem.ids)
    difference = jax.tree.map(np.subtract, scaled, expected)
    # The batch statistics cancel sums of 32 terms: some 1e-15 of the gradient.
    assert (norms(difference, problem.ids) / size).max() < 1e-10
    difference = jax.tree.map(np.subtract, scaled, raw)
    assert (norms(difference, problem.ids) / size).max() > 0.5


@pytest.mark.parametrize("make", [bn_mlp, mixed_network])
def test_gradient_is_tangent(make):
    problem = make()
    cosines = radial_cosines(problem, gradient(problem, problem.params))
    assert np.abs(cosines).max() < 1e-10
    blurred = make(epsilon=1.0)
    cosines = radial_cosines(blurred, gradient(blurred, problem.params))
    assert np.abs(cosines).max() > 1e-2


def radial_cosines(problem, u):
    sizes = norms(u, problem.ids) * norms(problem.params, problem.ids)
    return dot(u, problem.params, problem.ids) / sizes


# One group of norm 3 in seven dimensions, and a tangent of unit angle.
W = np.array([2.0, -1.0, 0.5, 0.0, 1.0, -0.5, 1.5])
W *= 3 / np.linalg.norm(W)
XI = np.array([0.3, 1.0, -0.2, 0.7, 0.1, 0.9, -0.4])
XI -= W * (W @ XI) / 9
XI *= 3 / np.linalg.norm(XI)


def from_great_circle(time, **options):
    """How far psi is from the great circle, in radii, after a step of a length.

    It takes gradients, of degree -1 as well as in units of the radius, of 3.
    """
    tx = psi_optax.psi(optax.scale(-1.0), ScaleGroup(0), **options)
    moved = W + first_update(tx, -time / 9 * XI, W)
    return np.linalg.norm(moved - W * np.cos(time) - XI * np.sin(time)) / 3


def test_projection_is_a_second_order_retraction():
    # (v + t x)/|v + t x| turns by arctan t and the great circle by t: so they
    # part by the chord of t - arctan t = t^3/3 - t^5/5 + ... At t = 0.01 it is
    # 3e-7, of which the rounding of weights of size 1 leaves 9 digits.
    for time in (0.1, 0.01):
        apart = from_great_circle(time)
        chord = 2 * np.sin((time - np.arctan(time)) / 2)
        np.testing.assert_allclose(apart, chord, rtol=1e-8)
    assert abs(apart / time**3 - 1 / 3) < 1e-4


def test_addition_is_a_first_order_retraction():
    # The control: without a retraction the distance falls as t^2/2 alone.
    for time in (0.1, 0.01):
        ratio = from_great_circle(time, retraction=None) / time**2
        np.testing.assert_allclose(ratio, 0.5, rtol=1e-2)
