"""Maps between spheres against plain numpy, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax import ScaleGroup, geometry
from psi_optax.groups import make_plan

# Thirty numbers or fewer in a sum, a few operations after it: 1e-15 times ten.
CLOSE = {"rtol": 1e-14, "atol": 1e-14}

SHAPES = {"k": (6, 4), "b": (4,)}
GROUPS = {"k": ScaleGroup(0, tie="t"), "b": ScaleGroup((), tie="t")}

pytestmark = pytest.mark.usefixtures("x64")


@functools.cache
def plan():
    """Four groups: the columns of a kernel, each with its bias."""
    return make_plan(GROUPS, draw(0))


def draw(seed, size=1.0):
    random = np.random.default_rng(seed)
    return {
        path: jnp.asarray(size * random.normal(size=shape))
        for path, shape in SHAPES.items()
    }


def columns(leaves):
    """The groups as columns of one numpy matrix: kernel above bias."""
    return np.concatenate([leaves["k"], leaves["b"][None]], axis=0)


def array(scalars):
    [found] = scalars.values()
    return np.asarray(found)


def scalars(value):
    return {"b": jnp.broadcast_to(jnp.asarray(value, jnp.float64), (4,))}


def test_norm():
    w = draw(0)
    expected = np.linalg.norm(columns(w), axis=0)
    np.testing.assert_allclose(
        array(geometry.norm(plan(), w)), expected, **CLOSE
    )


def test_tangent_is_orthogonal_and_projecting_twice_changes_nothing():
    w, u = draw(0), draw(1)
    t = geometry.project_to_tangent(plan(), w, u)
    W, U = columns(w), columns(u)
    expected = U - W * np.sum(W * U, axis=0) / np.sum(W * W, axis=0)
    np.testing.assert_allclose(columns(t), expected, **CLOSE)
    np.testing.assert_allclose(np.sum(columns(t) * W, axis=0), 0, atol=1e-13)
    twice = geometry.project_to_tangent(plan(), w, t)
    np.testing.assert_allclose(columns(twice), columns(t), **CLOSE)
    assert np.max(np.abs(np.sum(U * W, axis=0))) > 0.1  # Not so before.


def test_projection_to_the_sphere_keeps_direction():
    w = draw(0)
    onto = columns(geometry.project_to_sphere(plan(), w, scalars(3.0)))
    W = columns(w)
    expected = 3 * W / np.linalg.norm(W, axis=0)
    np.testing.assert_allclose(onto, expected, **CLOSE)


def test_retraction():
    w, u = draw(0), draw(1)
    got = columns(geometry.retract(plan(), w, u, scalars(3.0)))
    moved = columns(w) + columns(u)
    expected = 3 * moved / np.linalg.norm(moved, axis=0)
    np.testing.assert_allclose(got, expected, **CLOSE)


def numpy_transport(W, U, X):
    """Column by column, by the rotation in the plane of w and u."""
    out = np.empty_like(X)
    for i in range(W.shape[1]):
        v = W[:, i] / np.linalg.norm(W[:, i])
        h = U[:, i] / np.linalg.norm(W[:, i])
        h = h - v * (v @ h)
        angle = np.linalg.norm(h)
        e = h / angle
        turn = np.eye(len(v)) + np.sin(angle) * (
            np.outer(e, v) - np.outer(v, e)
        )
        turn += (np.cos(angle) - 1) * (np.outer(e, e) + np.outer(v, v))
        out[:, i] = turn @ X[:, i]
    return out


def leaves(W):
    """What `columns` makes columns of."""
    return {"k": jnp.asarray(W[:-1]), "b": jnp.asarray(W[-1])}


def test_transport_is_the_rotation_that_moves_old_to_new():
    w, u = draw(0), draw(1)
    x = geometry.project_to_tangent(plan(), w, draw(2))
    W, X = columns(w), columns(x)
    end = numpy_transport(W, columns(u), W)
    got = columns(geometry.transport(plan(), w, leaves(7 * end), x))
    expected = numpy_transport(W, columns(u), X)
    np.testing.assert_allclose(got, expected, **CLOSE)
    np.testing.assert_allclose(
        np.linalg.norm(got, axis=0), np.linalg.norm(X, axis=0), **CLOSE
    )
    np.testing.assert_allclose(np.sum(got * end, axis=0), 0, atol=1e-13)
    assert np.max(np.abs(np.sum(X * end, axis=0))) > 0.1  # x itself is not.


def test_transport_to_where_one_is_is_the_identity():
    w = draw(0)
    x = geometry.project_to_tangent(plan(), w, draw(2))
    got = geometry.transport(plan(), w, w, x)
    np.testing.assert_allclose(columns(got), columns(x), **CLOSE)


def test_transport_where_there_is_no_shortest_way():
    w = draw(0)
    x = geometry.project_to_tangent(plan(), w, draw(2))
    nothing = jax.tree.map(jnp.zeros_like, w)
    for new in (nothing, leaves(-columns(w))):
        got = geometry.transport(plan(), w, new, x)
        # At the antipode 0/0 of roundings, times a sum of directions of 1e-16.
        np.testing.assert_allclose(columns(got), columns(x), atol=1e-13)
    # From nowhere to somewhere: the direction halfway is that one.
    got = geometry.transport(plan(), nothing, w, draw(2))
    assert np.all(np.isfinite(columns(got)))


@pytest.mark.parametrize("short", [1e-3, 1e-6, 1e-9])
def test_transport_over_nearly_half_a_turn(short):
    w, u = draw(0), draw(1)
    x = geometry.project_to_tangent(plan(), w, u)
    V = columns(w) / np.linalg.norm(columns(w), axis=0)
    E = columns(x) / np.linalg.norm(columns(x), axis=0)
    end = -np.cos(short) * V + np.sin(short) * E
    got = columns(geometry.transport(plan(), w, leaves(end), leaves(E)))
    # v + v' is as short as that, of numbers rounded to 1e-16.
    expected = -np.cos(short) * E - np.sin(short) * V
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-15 / short)
    np.testing.assert_allclose(np.linalg.norm(got, axis=0), 1, rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("short", [1e-1, 1e-3, 1e-6])
def test_transport_near_half_a_turn_is_as_good_as_its_points(short, dtype):
    # 200 groups of 64 weights, for which the answer is known in float64, or,
    # in longdouble, to less than 1e-3 of what float64 is off by.
    eps = np.finfo(dtype).eps
    exact = np.float64 if dtype == "float32" else np.longdouble
    v, e = np.random.default_rng(0).normal(size=(2, 64, 200)).astype(exact)
    v /= np.linalg.norm(v, axis=0)
    e -= v * np.sum(v * e, axis=0)
    e /= np.linalg.norm(e, axis=0)
    angle = exact(short)
    new = -np.cos(angle) * v + np.sin(angle) * e
    expected = -np.cos(angle) * e - np.sin(angle) * v
    points = [x.astype(dtype) for x in (7 * v, 3 * new, e)]
    groups = make_plan(ScaleGroup(0), points[0])
    [path] = groups.paths
    got = geometry.transport(groups, *({path: jnp.asarray(x)} for x in points))
    error = np.linalg.norm(np.asarray(got[path], exact) - expected, axis=0)
    # v + v' is as short as the angle that is missing. It is off by half an eps
    # for the rounding of each point and of each quotient, and by one for each
    # norm; a reflection doubles that. The sum of these bounds is 8.
    assert np.all(error <= 8 * eps / short)
    assert np.max(error) >= eps / short
    # The rounding of the points alone does so much: no formula can know better.
    old, there, x = (x.astype(exact) for x in points)
    half = old / np.linalg.norm(old, axis=0)
    half = half + there / np.linalg.norm(there, axis=0)
    along = np.sum(half * x, axis=0) / np.sum(half * half, axis=0)
    best = x - 2 * half * along - expected
    assert np.max(np.linalg.norm(best, axis=0)) >= 0.3 * eps / short
    # The length is kept all the same.
    length = np.linalg.norm(np.asarray(got[path], exact), axis=0)
    np.testing.assert_allclose(length, 1, atol=8 * float(eps))


def test_center_subtracts_the_mean_of_every_group():
    u = draw(1)
    got = columns(geometry.center(plan(), u))
    U = columns(u)
    np.testing.assert_allclose(got, U - U.mean(0), **CLOSE)
    assert np.min(np.abs(U.mean(0))) > 0.01


def test_centered_tangent_space():
    w, u = draw(0), draw(1)
    got = columns(geometry.project_to_tangent(plan(), w, u, centered=True))
    W, U = columns(w), columns(u)
    # The orthogonal projection, by least squares, column by column.
    for i in range(W.shape[1]):
        normal = np.stack([W[:, i], np.ones(len(W))], 1)
        rest = U[:, i] - normal @ np.linalg.lstsq(normal, U[:, i])[0]
        np.testing.assert_allclose(got[:, i], rest, rtol=0, atol=1e-14)
    alone = columns(geometry.project_to_tangent(plan(), w, u))
    assert np.max(np.abs(alone.mean(0))) > 0.01


@pytest.mark.parametrize("angle", [1e-12, 1e-7, 0.3, 1.5, 3.0, np.pi])
def test_angle(angle):
    w = draw(0)
    t = geometry.project_to_tangent(plan(), w, draw(1))
    V = columns(w) / np.linalg.norm(columns(w), axis=0)
    T = columns(t) / np.linalg.norm(columns(t), axis=0)
    new = 7 * (np.cos(angle) * V + np.sin(angle) * T)
    new = {"k": jnp.asarray(new[:-1]), "b": jnp.asarray(new[-1])}
    got = array(geometry.angle(plan(), w, new))
    # The directions are rounded to 1.1e-16 in each of seven elements.
    np.testing.assert_allclose(got, angle, rtol=1e-14, atol=2e-15)


def test_angle_of_identical_weights_is_exactly_zero():
    w = draw(0)
    assert not array(geometry.angle(plan(), w, w)).any()


def test_angle_where_there_is_no_direction():
    w = draw(0)
    nothing = jax.tree.map(jnp.zeros_like, w)
    assert not array(geometry.angle(plan(), nothing, nothing)).any()
    assert np.isnan(array(geometry.angle(plan(), w, nothing))).all()
    assert np.isnan(array(geometry.angle(plan(), nothing, w))).all()


def test_scaling_by_zero_gives_zero_whatever_is_scaled():
    bad = jax.tree.map(lambda x: x + jnp.nan, draw(0))
    assert not columns(geometry.scale(plan(), bad, scalars(0.0))).any()
    assert np.isnan(columns(geometry.scale(plan(), bad, scalars(1.0)))).all()


def zero_first_group(leaves):
    return {"k": leaves["k"].at[:, 0].set(0), "b": leaves["b"].at[0].set(0)}


MAPS = {
    "norm": lambda w, u: geometry.norm(plan(), w),
    "tangent": lambda w, u: geometry.project_to_tangent(plan(), w, u),
    "sphere": lambda w, u: geometry.project_to_sphere(plan(), w, scalars(1.0)),
    "retract": lambda w, u: geometry.retract(plan(), w, u, scalars(1.0)),
    "transport": lambda w, u: geometry.transport(plan(), w, u, u),
    "transport there": lambda w, u: geometry.transport(plan(), u, w, u),
    "center": lambda w, u: geometry.center(plan(), u),
    "centered": lambda w, u: geometry.project_to_tangent(
        plan(), w, u, centered=True
    ),
    "angle": lambda w, u: geometry.angle(plan(), w, w),
}


@pytest.mark.parametrize("which", MAPS)
@pytest.mark.parametrize("still", [False, True])
def test_a_group_of_norm_zero_harms_no_value_and_no_derivative(which, still):
    w, u = zero_first_group(draw(0)), draw(1)
    u = zero_first_group(u) if still else u

    def total(w, u):
        return sum(jnp.sum(x) for x in jax.tree.leaves(MAPS[which](w, u)))

    value, gradients = jax.value_and_grad(total, argnums=(0, 1))(w, u)
    for x in jax.tree.leaves((value, gradients)):
        assert np.isfinite(x).all()


def test_retraction_leaves_a_group_of_norm_zero_alone():
    w, u = zero_first_group(draw(0)), draw(1)
    got = columns(geometry.retract(plan(), w, u, scalars(1.0)))
    assert not got[:, 0].any()
    np.testing.assert_allclose(np.linalg.norm(got[:, 1:], axis=0), 1, **CLOSE)


def test_a_zero_step_moves_no_bit_but_brings_home_what_is_off_the_sphere():
    w = draw(0)
    nothing = jax.tree.map(jnp.zeros_like, w)
    radius = np.linalg.norm(columns(w), axis=0) * (1 + 1e-15)
    got = columns(
        geometry.retract(plan(), w, nothing, {"b": jnp.asarray(radius)})
    )
    np.testing.assert_array_equal(got, columns(w))
    far = columns(geometry.retract(plan(), w, nothing, scalars(9.0)))
    np.testing.assert_allclose(np.linalg.norm(far, axis=0), 9, **CLOSE)


def test_displacement_rounds_the_target_and_not_the_difference():
    w = {"x": jnp.asarray([1.0], jnp.bfloat16)}
    # Just above halfway between the bfloat16 neighbours 1.015625 and 1.0234375;
    # the difference rounds to halfway, and 1 plus that to the even one below.
    target = {"x": jnp.asarray([1.01954], jnp.float32)}
    moved = w["x"] + geometry.rounded_update(w, target)["x"]
    assert moved == target["x"].astype(jnp.bfloat16) == 1.0234375
    assert w["x"] + (target["x"] - 1).astype(jnp.bfloat16) == 1.015625
    assert geometry.rounded_update(w, target)["x"].dtype == jnp.bfloat16
