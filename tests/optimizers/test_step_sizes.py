"""Steps whose length is set from sums, against transforms that set it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from psi_optax import (
    ScaleGroup,
    geometry,
    group_norms,
    hyperball,
    psi_direction,
    rotation,
    rotational,
)
from psi_optax.groups import joint_groups, make_plan
from psi_optax.optimizers._step_sizes import Normalized, RunningMean
from psi_optax.transforms import (
    normalize_by_group_norm,
    project_to_tangent,
    project_to_zero_mean,
    scale_by_group_rms,
)
from tests.registry import GROUPS, draw
from tests.theory.training import lenient, walk

STEPS = 30
COLUMNS = ScaleGroup(axes=0)
DIRECTIONS = {"trace": optax.trace(0.9), "adam": optax.scale_by_adam()}
ORDINARY = optax.sgd(0.1)
each_direction = pytest.mark.parametrize(
    "direction", DIRECTIONS.values(), ids=DIRECTIONS
)


def chained(direction, groups, *parts, **options):
    """Direction, transforms that write each step anew, and the sphere."""
    return psi_direction(
        0.05,
        optax.chain(direction, *parts),
        groups,
        ordinary=ORDINARY,
        **options,
    )


def end(tx):
    gradients = [draw(seed, "float64") for seed in range(1, STEPS)]
    path, _ = walk(lenient(tx), draw(0, "float64"), gradients)
    return path[-1]


def assert_same_end(tx, expected, other):
    """30 steps of a few hundred roundings of 1e-16, of weights below 8."""
    found, expected = end(tx), end(expected)
    for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-12)
    different = jax.tree.map(np.allclose, found, end(other))
    assert not all(jax.tree.leaves(different))


@each_direction
@pytest.mark.parametrize("centered", [False, True])
def test_rotational_is_the_chain_of_its_parts(x64, direction, centered):
    center = project_to_zero_mean(GROUPS) if centered else optax.identity()
    expected = chained(
        direction,
        GROUPS,
        center,
        project_to_tangent(GROUPS),
        scale_by_group_rms(GROUPS, 0.8, 1e-3),
    )
    found, other = (
        rotational(
            0.05,
            direction,
            GROUPS,
            b2=b2,
            eps=1e-3,
            centered=centered,
            ordinary=ORDINARY,
        )
        for b2 in (0.8, 0.81)
    )
    assert_same_end(found, expected, other)


@each_direction
@pytest.mark.parametrize("per_tensor", [False, True])
def test_hyperball_is_the_chain_of_its_parts(x64, direction, per_tensor):
    balls = joint_groups(GROUPS) if per_tensor else GROUPS
    expected = chained(
        direction, balls, normalize_by_group_norm(balls), tangent=False
    )
    found, other = (
        hyperball(0.05, direction, GROUPS, per_tensor=choice, ordinary=ORDINARY)
        for choice in (per_tensor, not per_tensor)
    )
    assert_same_end(found, expected, other)


@pytest.mark.parametrize("size", [1e-19, 3e18])
def test_the_square_of_a_rate_need_not_be_representable(size):
    """0.01 over 1.5e19 has a square of 4e-43, of which two digits are left."""
    w = jnp.asarray([[3.0], [4.0]])
    g = jnp.asarray([[-0.8 * size], [0.6 * size]], "float32")
    tx = hyperball(0.01, optax.identity(), COLUMNS, per_tensor=False)
    u, _ = jax.jit(tx.update)(g, tx.init(w), w)
    # Of a step of 0.01 radii, four roundings of weights below 4.
    np.testing.assert_allclose(rotation(w, w + u, COLUMNS), 0.01, rtol=1e-4)
    # Without the square the norm would be 5 (1 + 0.01^2 / 2).
    np.testing.assert_allclose(group_norms(w + u, COLUMNS), 5, rtol=5e-7)


def nearly_radial(angle, dtype):
    """Weights of norm 5, and a direction at an angle to them."""
    draw = np.random.default_rng(0)
    w, t = draw.normal(size=(2, 64, 3))
    w *= 5 / np.linalg.norm(w, axis=0)
    t -= w * np.sum(w * t, axis=0) / 25
    t /= np.linalg.norm(t, axis=0)
    d = np.cos(angle) * w / 5 + np.sin(angle) * t
    return jnp.asarray(w, dtype), jnp.asarray(d, dtype)


def tangent_norm(w, d):
    """The root of the first mean square, without its bias."""
    plan = make_plan(COLUMNS, w)
    [path], [name] = plan.paths, plan.group_shapes
    rule = RunningMean(0.0, 0.0)
    sums = geometry.step_sums(plan, {path: w}, {path: d})
    factor, _ = rule.update(plan, sums, rule.init(plan, {path: w}))
    return 1 / np.asarray(factor[name])


@pytest.mark.parametrize("angle", [1.0, 0.14, 0.01, 0.003])
def test_the_error_of_a_mean_square_is_within_its_bound(angle):
    w, d = nearly_radial(angle, "float32")
    W, D = np.asarray(w, np.float64), np.asarray(d, np.float64)
    T = D - W * np.sum(W * D, axis=0) / np.sum(W * W, axis=0)
    exact, length = np.sum(T * T, axis=0), np.sum(D * D, axis=0)
    bound = 16 * 2.0**-23 * length / exact
    off = np.abs(tangent_norm(w, d) ** 2 / exact - 1)
    assert np.all(off <= bound)
    # Not the tangent part in float32, nor the whole direction.
    assert np.all(np.abs(length / exact - 1) > bound)


def test_a_radial_direction_is_not_divided_by_its_rounding():
    w, _ = nearly_radial(0.0, "float32")
    tx = rotational(0.01, optax.identity(), COLUMNS)
    u, _ = jax.jit(tx.update)(w, tx.init(w), w)
    norms = group_norms(w + u, COLUMNS)
    # A radial part of rate / 1.4e-3 = 7 radii: 4 * 7^2 roundings.
    np.testing.assert_allclose(norms, 5, rtol=4 * 7**2 * 2.0**-23)
    # Its rounding is at most a step of that many roundings, too.
    assert np.all(rotation(w, w + u, COLUMNS) < 0.01)


@pytest.mark.parametrize("rule", [Normalized(), RunningMean(0.9, 1e-8)])
def test_factors_are_of_degree_minus_one(rule):
    """Powers of two pass through to the last bit, but for an epsilon."""
    w, d = nearly_radial(0.5, "float32")
    plan = make_plan(COLUMNS, w)
    [path], [name] = plan.paths, plan.group_shapes

    @jax.jit
    def factor(w, d):
        sums = geometry.step_sums(plan, {path: w}, {path: d})
        return rule.update(plan, sums, rule.init(plan, {path: w}))[0][name]

    scales = np.float32([[2.0**-10, 1, 2.0**10]])
    np.testing.assert_array_equal(factor(w * scales, d), factor(w, d))
    if isinstance(rule, Normalized):
        scaled = factor(w, d * scales) * scales[0]
        np.testing.assert_array_equal(scaled, factor(w, d))
    assert np.any(factor(w * np.float32(1 / 3), d * 3) * 3 != factor(w, d))
