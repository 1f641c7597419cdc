"""The closed-form step against the maps that it is composed of."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax import ScaleGroup, geometry
from psi_optax.groups import make_plan

# Sums of nine terms and ten operations or so: 1e-16 times twenty.
CLOSE = {"rtol": 2e-15, "atol": 2e-15}
RETRACTIONS = ["projection", "exponential", None]


def plan_for(w):
    return make_plan({"x": ScaleGroup(0)}, w)


def draw(seed, dtype="float64", size=1.0):
    x = size * np.random.default_rng(seed).normal(size=(9, 5))
    return {"x": jnp.asarray(x, dtype)}


def take(w, d, rate=-0.1, radius=None, retraction="projection", **options):
    """New weights after a step; by default on the sphere that w is on."""
    plan = plan_for(w)
    norm = geometry.norm(plan, w)
    radius = norm if radius is None else plan.full(radius)
    delta = geometry.step(
        plan,
        w,
        d,
        plan.full(rate),
        radius,
        retraction=retraction,
        **options,
    )
    return np.asarray(w["x"] + delta["x"])


def numpy_step(W, D, rate, radius, retraction):
    s = np.linalg.norm(W, axis=0)
    V = W / s
    T = rate * (D - V * np.sum(V * D, axis=0))
    angle = np.linalg.norm(T, axis=0)
    if retraction == "exponential":
        return radius * (V * np.cos(angle) + T / angle * np.sin(angle))
    if retraction == "projection":
        return radius * (V + T) / np.sqrt(1 + angle**2)
    return radius * (V + T)


@pytest.mark.parametrize("retraction", RETRACTIONS)
@pytest.mark.parametrize("rate", [-1e-6, -0.1, -3.0])
@pytest.mark.parametrize("radius", [None, 2.0])
def test_is_the_retraction_of_the_tangent_part(x64, rate, radius, retraction):
    w, d = draw(0), draw(1)
    W, D = np.asarray(w["x"]), np.asarray(d["x"])
    R = np.linalg.norm(W, axis=0) if radius is None else radius
    expected = numpy_step(W, D, rate, R, retraction)
    got = take(w, d, rate, radius, retraction)
    # A length of ten, and angles of that size times the precision.
    scale = 10 * np.max(np.abs(expected))
    np.testing.assert_allclose(got, expected, rtol=2e-15, atol=2e-15 * scale)
    other = numpy_step(W, D, 2 * rate, R, retraction)
    assert np.max(np.abs(got - other)) > 1e-7


@pytest.mark.parametrize(("off", "left"), [(12, 9), (100, 0)])
def test_what_may_be_rounding_is_corrected_by_a_quarter(x64, off, left):
    # The rounding of 4096 weights averages out, to less than 0.01 of 2^-52 of
    # their norm; that of the sum of their squares is one or two of it.
    eps = np.finfo(float).eps
    draw = np.random.default_rng(0)
    w, d = draw.normal(size=(2, 4096, 3))
    norm = np.sqrt([math.fsum(x * x) for x in w.T])
    w *= (1 + off * eps) / norm
    d -= w * np.sum(w * d, axis=0)
    new = take({"x": jnp.asarray(w)}, {"x": jnp.asarray(d)}, -1e-6, 1.0)
    excess = [(math.fsum(x * x) - 1) / 2 for x in new.T]
    np.testing.assert_allclose(np.array(excess) / eps, left, atol=2)


@pytest.mark.parametrize("retraction", ["projection", "exponential"])
def test_arrives_on_the_sphere(x64, retraction):
    norms = np.linalg.norm(
        take(draw(0), draw(1), -1.0, 2.0, retraction), axis=0
    )
    np.testing.assert_allclose(norms, 2, **CLOSE)


def test_without_a_retraction_the_norm_grows_by_pythagoras(x64):
    w, d = draw(0), draw(1)
    W, D = np.asarray(w["x"]), np.asarray(d["x"])
    V = W / np.linalg.norm(W, axis=0)
    T = 0.1 * (D - V * np.sum(V * D, axis=0))
    growth = np.linalg.norm(take(w, d, retraction=None), axis=0)
    growth /= np.linalg.norm(W, axis=0)
    expected = np.sqrt(1 + np.sum(T * T, axis=0))
    np.testing.assert_allclose(growth, expected, **CLOSE)
    assert np.min(growth) > 1.001


@pytest.mark.parametrize("retraction", ["projection", None])
# The last goes through the origin and out on the other side.
@pytest.mark.parametrize(("rate", "radial"), [(-0.1, 1), (-2, 1), (-2, 30)])
def test_whole_steps(x64, rate, radial, retraction):
    w, d = draw(0), draw(1)
    W, D = np.asarray(w["x"]), np.asarray(d["x"])
    s = np.linalg.norm(W, axis=0)
    D = D + radial * W / s
    moved = W / s + rate * D
    if retraction == "projection":
        moved /= np.linalg.norm(moved, axis=0)
    got = take(
        w, {"x": jnp.asarray(D)}, rate, retraction=retraction, tangent=False
    )
    # Lengths of up to sixty radii, of which ten roundings are relative.
    scale = 60 * np.max(s)
    np.testing.assert_allclose(got, s * moved, rtol=2e-15, atol=2e-15 * scale)
    tangent = take(w, {"x": jnp.asarray(D)}, rate, retraction=retraction)
    assert np.max(np.abs(got - tangent)) > 0.01


def test_a_whole_step_to_the_origin_arrives_there(x64):
    w = {"x": jnp.full((4, 1), 0.5)}
    assert not take(w, w, -1.0, tangent=False).any()


def test_a_whole_step_through_the_origin_ends_on_the_other_side(x64):
    w = {"x": jnp.full((4, 1), 0.5)}
    np.testing.assert_array_equal(take(w, w, -2.0, tangent=False), -w["x"])


def test_the_radial_part_of_a_step_does_nothing(x64):
    w, d = draw(0), draw(1)
    radial = {"x": d["x"] + 3 * w["x"]}
    np.testing.assert_allclose(take(w, radial), take(w, d), rtol=1e-14)
    assert np.max(np.abs(take(w, {"x": 3 * d["x"]}) - take(w, d))) > 0.1


@pytest.mark.parametrize("retraction", RETRACTIONS)
def test_powers_of_two_pass_through_to_the_last_bit(retraction):
    w, d = draw(0, "float32"), draw(1, "float32")
    factor = jnp.asarray([[2.0**-20, 0.5, 1, 8, 2.0**20]], jnp.float32)
    run = jax.jit(lambda w: take_traced(w, d, retraction))
    got = run({"x": w["x"] * factor})["x"]
    np.testing.assert_array_equal(got, run(w)["x"] * factor)
    third = run({"x": w["x"] * jnp.float32(1 / 3)})["x"]
    assert np.any(third != run(w)["x"] * jnp.float32(1 / 3))


def take_traced(w, d, retraction):
    plan = plan_for(w)
    rate, radius = plan.full(-0.1), geometry.norm(plan, w)
    return geometry.step(plan, w, d, rate, radius, retraction=retraction)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("retraction", RETRACTIONS)
def test_a_zero_step_moves_no_bit(dtype, retraction):
    w = draw(0, dtype)
    nothing = {"x": jnp.zeros_like(w["x"])}
    # The weights' own norm, and one that rounding could have left behind.
    for radius in [None, float(np.linalg.norm(w["x"][:, 0])) * (1 + 3e-7)]:
        still = take(
            {"x": w["x"][:, :1]}, {"x": nothing["x"][:, :1]}, -0.1, radius
        )
        np.testing.assert_array_equal(still, w["x"][:, :1])
    for rate, d in [(0.0, draw(1, dtype)), (-0.1, nothing)]:
        moved = take(w, d, rate, retraction=retraction)
        np.testing.assert_array_equal(moved, w["x"])
    assert np.any(take(w, draw(1, dtype), retraction=retraction) != w["x"])


def test_a_zero_step_brings_home_what_is_off_the_sphere():
    w = draw(0, "float32")
    nothing = {"x": jnp.zeros_like(w["x"])}
    norms = np.linalg.norm(take(w, nothing, -0.1, 100.0), axis=0)
    np.testing.assert_allclose(norms, 100, rtol=5e-7)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e25])
@pytest.mark.parametrize("retraction", ["projection", "exponential"])
def test_what_is_not_finite_spoils_its_own_group_only(bad, retraction):
    w, d = draw(0, "float32"), draw(1, "float32")
    clean = take(w, d, retraction=retraction)
    got = take(w, {"x": d["x"].at[2, 3].set(bad)}, retraction=retraction)
    assert not np.isfinite(got[:, 3]).any()
    others = [0, 1, 2, 4]
    np.testing.assert_array_equal(got[:, others], clean[:, others])


@pytest.mark.parametrize("d", [1.0, np.nan, np.inf])
@pytest.mark.parametrize("radius", [None, 1.0])
def test_a_group_of_norm_zero_never_moves(d, radius):
    w = {"x": draw(0, "float32")["x"].at[:, 0].set(0)}
    step = {"x": draw(1, "float32")["x"].at[:, 0].set(d)}
    got = take(w, step, radius=radius)
    assert not got[:, 0].any()
    assert np.all(got[:, 1:] != w["x"][:, 1:])


@pytest.mark.parametrize(
    ("dtype", "reach"), [("bfloat16", 16), ("float16", 32), ("float32", 4096)]
)
@pytest.mark.parametrize("coarse", ["weights", "directions"])
def test_a_sphere_out_of_reach_is_approached(dtype, reach, coarse):
    # In the dtype that is the coarser one, of the weights or the directions.
    w = draw(0, dtype if coarse == "weights" else "float32")
    d = {"x": jnp.zeros((9, 5), dtype)}
    plan = plan_for(w)
    norms = geometry.norm(plan, w)["x"]
    for far in (0.5, 2, 1e3):
        radius = {"x": norms / (far * reach)}
        for way in (geometry.step, geometry.retract):
            rate = [plan.full(-0.1)] if way is geometry.step else []
            update = way(plan, w, d, *rate, radius)["x"]
            got = np.asarray(w["x"] + update, np.float64)
            # At most an eps of each weight, over what is left of it.
            eps = float(jnp.finfo(dtype).eps)
            expected = np.asarray(w["x"], np.float64) / (min(far, 1) * reach)
            off = np.linalg.norm(got - expected, axis=0)
            most = eps * reach * np.linalg.norm(expected, axis=0)
            assert np.all(off <= most)
    if dtype != "float32":
        finer = {"x": d["x"].astype("float32")}
        w = {"x": w["x"].astype("float32")}
        got = take(w, finer, -0.1, float(np.min(norms)) / 1e3)
        assert np.max(np.linalg.norm(got, axis=0) / norms) < 2e-3


def test_a_sphere_of_radius_zero_is_reached():
    w = draw(0, "float32")
    nothing = {"x": jnp.zeros((9, 5))}
    # But for the rounding of the sum of squares.
    norms = np.linalg.norm(take(w, nothing, -0.1, 0.0), axis=0)
    assert np.max(norms / np.linalg.norm(w["x"], axis=0)) < 5e-7
    plan = plan_for(w)
    zero = geometry.retract(plan, w, nothing, plan.full(0.0))
    np.testing.assert_array_equal(zero["x"], -w["x"])


def test_empty_leaves():
    for shape in [(0, 3), (3, 0)]:
        empty = {"x": jnp.zeros(shape)}
        assert take(empty, empty).shape == shape


def test_a_large_step_is_not_lost_to_cancellation():
    """A rate that turns a group by almost a right angle, in float32."""
    w, d = draw(0, "float32"), draw(1, "float32")
    got = take(w, d, -1e4, 1.0)
    expected = numpy_step(
        np.asarray(w["x"], np.float64),
        np.asarray(d["x"], np.float64),
        -1e4,
        1.0,
        "projection",
    )
    # |t|² is a difference that loses a digit, and decides the length by half.
    np.testing.assert_allclose(got, expected, atol=2e-6)
