"""The PSI manifold: metric, gradient, retraction.

Yi, "Accelerating training of batch normalization: a manifold perspective"
(arXiv 2101.02916, UAI 2022), eqs. 6 to 8. All in double precision, on networks
whose groups are columns, tied leaves and blocks.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from psi_optax import ScaleGroup
from tests.compilation import quick_jit
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


@pytest.mark.parametrize("make", [bn_mlp, mixed_network])
def test_tangent_projection_leaves_a_tangent_gradient(make):
    problem = make()
    g = gradient(problem, problem.params)
    tx = psi_optax.transforms.project_to_tangent(problem.groups)
    projected = first_update(tx, g, problem.params)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=ROUNDING),
        projected,
        g,
    )


def test_tangent_projection_removes_the_radial_part():
    problem = mixed_network()
    random = np.random.RandomState(1)
    u = jax.tree.map(lambda x: random.normal(size=x.shape), problem.params)
    tx = psi_optax.transforms.project_to_tangent(problem.groups)
    projected = first_update(tx, u, problem.params)
    assert np.abs(radial_cosines(problem, u)).max() > 1e-2
    assert np.abs(radial_cosines(problem, projected)).max() < ROUNDING
    # And nothing else: what was removed is a multiple of the weights.
    removed = jax.tree.map(np.subtract, u, projected)
    cosines = np.abs(radial_cosines(problem, removed))
    np.testing.assert_allclose(cosines, 1, atol=ROUNDING)


def radial_cosines(problem, u):
    sizes = norms(u, problem.ids) * norms(problem.params, problem.ids)
    return dot(u, problem.params, problem.ids) / sizes


# One group of norm 3 in seven dimensions, and a tangent of unit angle.
W = np.array([2.0, -1.0, 0.5, 0.0, 1.0, -0.5, 1.5])
W *= 3 / np.linalg.norm(W)
XI = np.array([0.3, 1.0, -0.2, 0.7, 0.1, 0.9, -0.4])
XI -= W * (W @ XI) / 9
XI *= 3 / np.linalg.norm(XI)


# Each map from (w, u) with its transform, and what to multiply u by to get the
# updates that bring the tangent u about: psi takes gradients, of degree -1 as
# well as in units of the radius, of 3.
MAPS = {
    "retract": (psi_optax.transforms.retract(ScaleGroup(0)), 1.0),
    "retract_exponential": (
        psi_optax.transforms.retract(ScaleGroup(0), retraction="exponential"),
        1.0,
    ),
    "psi": (psi_optax.psi(optax.identity(), ScaleGroup(0)), 1 / 9),
    "psi_exponential": (
        psi_optax.psi(
            optax.identity(), ScaleGroup(0), retraction="exponential"
        ),
        1 / 9,
    ),
    "psi_additive": (
        psi_optax.psi(optax.identity(), ScaleGroup(0), retraction=None),
        1 / 9,
    ),
}
ON_THE_SPHERE = list(MAPS)[:4]


def move(name, w, u):
    """R(w, u)."""
    tx, factor = MAPS[name]
    return w + first_update(tx, factor * u, w)


def speed(name, w, u, time):
    """The derivative of R(w, t u) by t."""
    tx, factor = MAPS[name]

    def curve(t):
        return w + tx.update(t * factor * u, tx.init(w), w)[0]

    w, u = jnp.asarray(w), jnp.asarray(u)
    return quick_jit(lambda t: jax.jvp(curve, (t,), (1.0,))[1])(time)


def great_circle(time):
    return W * np.cos(time) + XI * np.sin(time)


@pytest.mark.parametrize("name", MAPS)
def test_zero_step_is_the_identity(name):
    assert np.array_equal(move(name, W, np.zeros(7)), W)
    assert not np.array_equal(move(name, W, 1e-12 * XI), W)


@pytest.mark.parametrize("name", MAPS)
def test_derivative_at_zero_is_the_identity(name):
    # By differences: the curve is W + t XI - t^2 W/2 + O(t^3), so the error is
    # t/2 times 3; and rounding adds 1e-16/t.
    time = 1e-6
    slope = (move(name, W, time * XI) - W) / time
    np.testing.assert_allclose(slope, XI, atol=3e-6)
    # Then in closed form, a little beside t = 0, where the rule for a step of
    # zero takes over.
    np.testing.assert_allclose(speed(name, W, XI, 1e-9), XI, atol=1e-8)


def test_derivative_along_the_radius_is_zero():
    # The control: a radial direction is not a tangent and is projected away.
    slope = speed("retract", W, W, 1e-9)
    np.testing.assert_allclose(slope, 0, atol=1e-8)


@pytest.mark.parametrize("name", ON_THE_SPHERE)
def test_retraction_stays_on_the_sphere(name):
    for time in (0.1, 1.0, 2.0):
        norm = np.linalg.norm(move(name, W, time * XI))
        np.testing.assert_allclose(norm, 3, rtol=1e-14)
    assert np.linalg.norm(move("psi_additive", W, 0.1 * XI)) > 3.01


@pytest.mark.parametrize("name", ["retract", "retract_exponential"])
def test_retraction_commutes_with_rescaling(name):
    # 700 is no power of two, so products round; not by more than 1e-13.
    expected = 700 * move(name, W, 0.2 * XI)
    np.testing.assert_allclose(
        move(name, 700 * W, 140 * XI), expected, rtol=1e-13
    )
    assert np.abs(move(name, 700 * W, 0.2 * XI) - expected).max() > 1


@pytest.mark.parametrize("name", ["retract", "psi"])
def test_projection_is_a_second_order_retraction(name):
    # (v + t x)/|v + t x| turns by arctan t and the great circle by t: so they
    # part by the chord of t - arctan t = t^3/3 - t^5/5 + ... At t = 0.01 it is
    # 3e-7, of which the rounding of weights of size 1 leaves 9 digits.
    for time in (0.1, 0.01):
        apart = move(name, W, time * XI) - great_circle(time)
        apart = np.linalg.norm(apart) / 3
        chord = 2 * np.sin((time - np.arctan(time)) / 2)
        np.testing.assert_allclose(apart, chord, rtol=1e-8)
    assert abs(apart / time**3 - 1 / 3) < 1e-4


@pytest.mark.parametrize("name", ["retract_exponential", "psi_exponential"])
def test_exponential_is_the_great_circle(name):
    for time in (0.01, 0.1, 1.0, 3.0):
        np.testing.assert_allclose(
            move(name, W, time * XI),
            great_circle(time),
            rtol=1e-13,
            atol=1e-14,
        )


def test_addition_is_a_first_order_retraction():
    # The control: without a retraction the distance falls as t^2/2 alone.
    for time in (0.1, 0.01):
        apart = move("psi_additive", W, time * XI) - great_circle(time)
        ratio = np.linalg.norm(apart) / 3 / time**2
        np.testing.assert_allclose(ratio, 0.5, rtol=1e-2)
