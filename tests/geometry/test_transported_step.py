"""A step with its momentum against explicit parallel transport."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax import ScaleGroup, geometry
from psi_optax.groups import make_plan

# Sums of nine terms and twenty operations or so: 1e-16 times forty.
CLOSE = {"rtol": 4e-15, "atol": 4e-15}
SHAPE = (9, 5)
QUARTERS = [0.5, 1.0, 1.5, 2.0, 3.0]


def draw(seed, dtype="float64", shape=SHAPE):
    x = np.random.default_rng(seed).normal(size=shape)
    return {"x": jnp.asarray(x, dtype)}


def plan_for(w):
    return make_plan({"x": ScaleGroup(0)}, w)


def along(w, m):
    """The radial part of columns, in units of w."""
    return w * (w * m).sum(0) / (w * w).sum(0)


def tangent(w, m):
    return m - along(w, m)


def take(w, z, g, decay=0.9, gain=-0.3, rate=1.0, radius=None):
    """New weights and stored momentum after a step."""
    plan = plan_for(w)
    m = geometry.Momentum(z, plan.full(decay), g, plan.full(gain))
    sums = geometry.momentum_sums(
        plan, m, plan.dot(w, w), plan.dot(w, z), plan.dot(w, g)
    )
    radius = geometry.norm(plan, w) if radius is None else plan.full(radius)
    moved, z = geometry.transported_step(
        plan, w, m, plan.full(rate), radius, sums
    )
    return np.asarray(w["x"] + moved["x"]), np.asarray(z["x"])


def explicit(w, m, rate):
    """The same by rotating the plane of w and a tangent m."""
    s, length = np.linalg.norm(w, axis=0), np.linalg.norm(m, axis=0)
    v, e, angle = w / s, m / length, rate * length
    after = s * (v * np.cos(angle) + e * np.sin(angle))
    return after, length * (e * np.cos(angle) - v * np.sin(angle))


@pytest.mark.parametrize("rate", [1e-6, -0.1, 1.0, -2.0])
@pytest.mark.parametrize("radius", [None, 2.0])
def test_is_the_explicit_transport_of_the_tangent_part(x64, rate, radius):
    w, z, g = (draw(seed) for seed in range(3))
    after, stored = take(w, z, g, rate=rate, radius=radius)
    W, m = np.asarray(w["x"]), np.asarray(0.9 * z["x"] - 0.3 * g["x"])
    expected, transported = explicit(W, tangent(W, m), rate)
    if radius is not None:
        expected *= radius / np.linalg.norm(W, axis=0)
    np.testing.assert_allclose(after, expected, **CLOSE)
    np.testing.assert_allclose(tangent(after, stored), transported, **CLOSE)
    # Control: it is another than the part of m that is tangent there.
    if abs(rate) >= 1:
        assert np.abs(tangent(after, m) - transported).max() > 0.1


@pytest.mark.parametrize("quarters", QUARTERS)
@pytest.mark.parametrize("sign", [1, -1])
def test_is_exact_at_every_angle(x64, quarters, sign):
    """At right angles v' is m, and at half a turn no geodesic is shortest."""
    w, zero = draw(0), {"x": jnp.zeros(SHAPE)}
    W = np.asarray(w["x"])
    m = tangent(W, np.asarray(draw(1)["x"]))
    m /= np.linalg.norm(m, axis=0)
    rate = sign * quarters * math.pi / 2
    after, stored = take(w, {"x": jnp.asarray(m)}, zero, decay=1.0, rate=rate)
    expected, transported = explicit(W, m, rate)
    np.testing.assert_allclose(after, expected, **CLOSE)
    np.testing.assert_allclose(tangent(after, stored), transported, **CLOSE)


def test_is_the_transport_along_the_shortest_geodesic(x64):
    """The other way round, beyond half a turn, is the same rotation."""
    w, zero = draw(0), {"x": jnp.zeros(SHAPE)}
    plan, W = plan_for(w), np.asarray(w["x"])
    m = tangent(W, np.asarray(draw(1)["x"]))
    for angle in (0.3, 3.0, 3.3, 6.0, 7.0):
        m *= angle / np.linalg.norm(m, axis=0)
        old = {"x": jnp.asarray(m)}
        after, stored = take(w, old, zero, decay=1.0)
        moved = geometry.transport(plan, w, {"x": jnp.asarray(after)}, old)
        # Near half a turn the shortest geodesic is known to 4 eps / 0.14.
        np.testing.assert_allclose(
            tangent(after, stored), moved["x"], rtol=0, atol=2e-13
        )


def test_radial_momentum_does_nothing(x64):
    w, z, g = (draw(seed) for seed in range(3))
    W, Z = np.asarray(w["x"]), np.asarray(z["x"])
    radial = 5 * W / np.linalg.norm(W, axis=0)
    after, stored = take(w, z, g)
    again, other = take(w, {"x": jnp.asarray(Z + radial)}, g)
    # A radial part of p = 4.5 costs 4 p² roundings.
    close = {"rtol": 0, "atol": 4 * 4.5**2 * 2.0**-50}
    np.testing.assert_allclose(again, after, **close)
    np.testing.assert_allclose(other, stored, **close)
    # Control: as much of a tangent part is noticed.
    turned = np.roll(radial, 1, axis=0)
    assert (
        np.abs(take(w, {"x": jnp.asarray(Z + turned)}, g)[0] - after).max() > 1
    )


@pytest.mark.parametrize("power", [-20, 20])
def test_powers_of_two_pass_to_the_bit(power):
    w, z, g = (draw(seed, "float32") for seed in range(3))
    factor = np.float32(2.0**power)
    run = jax.jit(take_arrays)
    after, stored = run(w, z, g, 1.0)
    scaled, same = run(
        {"x": factor * w["x"]}, z, {"x": g["x"] / factor}, factor
    )
    np.testing.assert_array_equal(scaled, factor * after)
    np.testing.assert_array_equal(same, stored)


def take_arrays(w, z, g, scale):
    """As `take`, with the gain of a gradient in units of the weights."""
    plan = plan_for(w)
    gain = jax.tree.map(lambda x: -0.1 * x, plan.full(scale))
    m = geometry.Momentum(z, plan.full(0.9), g, gain)
    sums = geometry.momentum_sums(
        plan, m, plan.dot(w, w), plan.dot(w, z), plan.dot(w, g)
    )
    moved, z = geometry.transported_step(
        plan, w, m, plan.full(1.0), geometry.norm(plan, w), sums
    )
    return w["x"] + moved["x"], z["x"]


@pytest.mark.parametrize("jit", [False, True])
def test_zero_groups_stay_and_forget(jit):
    w, z, g = (draw(seed, "float32") for seed in range(3))
    w = {"x": w["x"].at[:, 0].set(0)}
    g = {"x": g["x"].at[:, 0].set(jnp.nan)}
    after, stored = (jax.jit(take_arrays) if jit else take_arrays)(w, z, g, 1.0)
    assert np.all(after[:, 0] == 0)
    assert np.all(stored[:, 0] == 0)
    assert np.isfinite(after).all()
    assert np.isfinite(stored).all()


def test_a_zero_step_keeps_every_bit():
    w = draw(0, "float32")
    zero = {"x": jnp.zeros(SHAPE)}
    after, stored = take(w, zero, zero)
    np.testing.assert_array_equal(after, w["x"])
    assert not stored.any()
    # Control: the smallest one that is noticed.
    g = {"x": jnp.full(SHAPE, 1e-5)}
    assert not np.array_equal(take(w, zero, g)[0], w["x"])


def test_a_non_finite_gradient_spoils_its_own_group_alone():
    w, z, g = (draw(seed, "float32") for seed in range(3))
    expected = take(w, z, g)
    found = take(w, z, {"x": g["x"].at[2, 1].set(jnp.inf)})
    for x, y in zip(found, expected, strict=True):
        assert np.isnan(x[:, 1]).all()
        others = np.delete(x, 1, axis=1), np.delete(y, 1, axis=1)
        np.testing.assert_array_equal(*others)


def test_twice_differentiable_at_a_zero_step(x64):
    """Both derivatives are those of the exponential map, not NaN."""
    w, zero = draw(0), {"x": jnp.zeros(SHAPE)}
    plan = plan_for(w)
    direction = tangent(np.asarray(w["x"]), np.asarray(draw(1)["x"]))

    def curve(t):
        m = geometry.Momentum(
            {"x": t * jnp.asarray(direction)},
            plan.full(1.0),
            zero,
            plan.full(0.0),
        )
        sums = geometry.momentum_sums(
            plan, m, plan.dot(w, w), plan.dot(w, m.stored), plan.dot(w, zero)
        )
        moved, z = geometry.transported_step(
            plan, w, m, plan.full(1.0), geometry.norm(plan, w), sums
        )
        return w["x"] + moved["x"], z["x"]

    first, second = jax.jacfwd(curve), jax.jacfwd(jax.jacfwd(curve))
    W = np.asarray(w["x"])
    s, length = np.linalg.norm(W, axis=0), np.linalg.norm(direction, axis=0)
    slope, momentum = first(0.0)
    np.testing.assert_allclose(slope, s * direction, **CLOSE)
    np.testing.assert_allclose(momentum, direction, **CLOSE)
    bend, turn = second(0.0)
    np.testing.assert_allclose(bend, -W * length**2, rtol=1e-13)
    np.testing.assert_allclose(turn, -(W / s) * length**2, rtol=1e-13)
