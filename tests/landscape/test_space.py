"""The space of steps and the Hessian in it, against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from psi_optax import ScaleGroup, geometry, joint_groups
from psi_optax.groups import make_plan
from psi_optax.landscape import eigenpairs, hessian, tangent_space
from tests.landscape.network import (
    GROUPS,
    SIZE,
    TANGENTS,
    dense,
    loss,
    make_net,
    plain,
    radii_and_projection,
    rescaled,
)

pytestmark = pytest.mark.usefixtures("x64")

# A product of 126 terms of size 1, each rounded to 1e-16 several times.
TIGHT = 2e-14


def close(found, expected, atol=TIGHT):
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def of_groups(params, args, groups=GROUPS, **options):
    return dense(hessian(loss, params, *args, groups=groups, **options), params)


def test_without_groups_it_is_the_hessian(net):
    params, args = net
    expected, _ = plain(lambda p: loss(p, *args), params)
    found = dense(hessian(loss, params, *args), params)
    close(found, expected)
    close(found, found.T)
    assert tangent_space(params).size == SIZE


def test_it_is_the_projected_hessian_in_units_of_radii(net):
    params, args = net
    plain_hessian, _ = plain(lambda p: loss(p, *args), params)
    radius, projection, _ = radii_and_projection(params)
    scaled = radius[:, None] * plain_hessian * radius
    found = of_groups(*net)
    close(found, projection @ scaled @ projection)
    close(found, found.T)
    # The control: without the projection, lengths couple to directions.
    assert abs(found - scaled).max() > 0.01
    assert tangent_space(params, GROUPS).size == TANGENTS
    assert round(np.trace(projection)) == TANGENTS


def test_with_an_epsilon_it_has_the_term_of_the_curved_sphere(net):
    params, args = net

    def with_epsilon(p, *args):
        return loss(p, *args, epsilon=1.0)

    plain_hessian, gradient = plain(lambda p: with_epsilon(p, *args), params)
    radius, projection, directions = radii_and_projection(params)
    flat = projection @ (radius[:, None] * plain_hessian * radius) @ projection
    slope = np.zeros(SIZE)
    for index, v in directions:
        slope[index] = v @ (radius * gradient)
    found = dense(hessian(with_epsilon, params, *args, groups=GROUPS), params)
    close(found, flat - projection @ np.diag(slope) @ projection)
    # The control: the projection without the retraction.
    assert abs(found - flat).max() > 1e-3


def test_it_ignores_the_scale_of_filters(net):
    params, args = net
    factors = np.exp(3 * np.random.RandomState(0).normal(size=(1, 6)))
    other = rescaled(params, factors, 1e-3)
    found = of_groups(params, args)
    # Factors from 1e-3 to 1e3 cancel to rounding.
    close(of_groups(other, args), found)
    before, after = (dense(hessian(loss, p, *args), p) for p in (params, other))
    assert np.linalg.eigvalsh(after)[-1] > 1e3 * np.linalg.eigvalsh(before)[-1]


def test_powers_of_two_change_no_bit_in_single_precision():
    params, args = make_net(dtype="float32")
    u = tangent_space(params, GROUPS).random(jax.random.key(1))
    product = jax.jit(
        lambda p, epsilon: hessian(
            loss, p, *args, epsilon, groups=GROUPS
        ).matvec(u)
    )
    factors = jnp.exp2(jnp.arange(-3.0, 3.0, dtype=jnp.float32))
    other = rescaled(params, factors[None], 0.125)
    same, changed = (
        [ravel_pytree(product(p, e))[0] for p in (params, other)]
        for e in jnp.array([0.0, 1e-3], jnp.float32)
    )
    assert same[0].dtype == jnp.float32
    np.testing.assert_array_equal(*same)
    # The control: an epsilon is a scale.
    assert abs(changed[0] - changed[1]).max() > 1e-4


def test_the_gradient_at_zero_is_that_in_direction_space(net):
    params, args = net
    space = tangent_space(params, GROUPS)
    zero = jax.tree.map(jnp.zeros_like, params)
    found = jax.jit(jax.grad(lambda u: loss(space.at(u), *args)))(zero)
    _, gradient = plain(lambda p: loss(p, *args), params)
    radius, _, _ = radii_and_projection(params)
    close(ravel_pytree(found)[0], radius * gradient)
    for x, y in zip(
        *map(jax.tree.leaves, (space.at(zero), params)), strict=True
    ):
        np.testing.assert_array_equal(x, y)


def test_units_are_those_of_the_preconditioned_iteration(net):
    params, args = net
    units = jax.tree.map(
        lambda x: jnp.exp(jax.random.normal(jax.random.key(2), x.shape)), params
    )
    curvature = hessian(loss, params, *args, groups=GROUPS, units=units)
    assert curvature.space.size == SIZE
    found = np.linalg.eigvalsh(dense(curvature, params))
    _, projection, _ = radii_and_projection(params)
    d = np.asarray(ravel_pytree(units)[0])
    iteration = projection @ np.diag(d**2) @ projection @ of_groups(*net)
    expected = np.sort(np.linalg.eigvals(iteration).real)
    close(found, expected, atol=1e-11)
    # The control: units in place of the radii, without the projection.
    ambient, _ = plain(lambda p: loss(p, *args), params)
    wrong = np.linalg.eigvals(np.diag(d**2) @ ambient).real.max()
    assert abs(wrong - expected[-1]) > 1e-3


W = np.random.RandomState(0).normal(size=(4, 6))
KINDS = {
    "filters": ({"w": ScaleGroup(0), "b": None}, 24 - 6 + 6),
    "matrix": ({"w": ScaleGroup((0, 1)), "b": None}, 24 - 1 + 6),
    "blocks": ({"w": ScaleGroup((0, 1), {0: 2}), "b": None}, 24 - 2 + 6),
    "tie": (
        {"w": ScaleGroup(0, tie="t"), "b": ScaleGroup((), tie="t")},
        30 - 6,
    ),
    "singletons": ({"w": None, "b": ScaleGroup(())}, 24),
    "joint": (joint_groups({"w": ScaleGroup(0), "b": ScaleGroup(0)}), 30 - 2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_group(kind):
    groups, size = KINDS[kind]
    params = {"w": jnp.array(W), "b": jnp.linspace(0.5, 2.0, 6)}
    space = tangent_space(params, groups)
    u = space.random(jax.random.key(0))
    assert space.size == size
    plan = make_plan(groups, params)
    w = plan.select(params)
    moved = space.at(jax.tree.map(lambda x: 0.5 * x, u))
    # The norm is kept, and the tangent of the angle is the length of the step.
    for name, r in geometry.norm(plan, plan.select(moved)).items():
        close(r, geometry.norm(plan, w)[name])
        angle = geometry.angle(plan, w, plan.select(moved))[name]
        length = geometry.norm(plan, plan.select(u))[name]
        close(jnp.tan(angle), 0.5 * length)
        radial = plan.dot(w, plan.select(u))[name]
        close(radial, np.zeros(radial.shape))

    def function(p):
        return jnp.sum(jnp.sin(p["w"])) + jnp.sum(p["b"] ** 3)

    found = dense(hessian(function, params, groups=groups), params)
    rank = np.linalg.matrix_rank(found, tol=1e-9)
    assert rank <= size < 31
    if kind != "singletons":
        assert rank == size


def test_filter_normalized_directions_are_unit_vectors_of_groups(net):
    space = tangent_space(net.params, GROUPS)
    u = space.random(jax.random.key(3), filter_normalized=True)
    close(jnp.linalg.norm(u["a"]["kernel"], axis=0), np.ones(6))
    close(
        jnp.linalg.norm(u["head"]["kernel"].ravel()),
        jnp.linalg.norm(net.params["head"]["kernel"].ravel()),
    )
    assert not u["bn"]["scale"].any()
    units = jax.tree.map(jnp.ones_like, net.params)
    in_units = tangent_space(net.params, GROUPS, units)
    with pytest.raises(ValueError, match="units"):
        in_units.random(jax.random.key(3), filter_normalized=True)


def test_groups_of_norm_zero_have_no_dimensions(net):
    params = rescaled(net.params, jnp.arange(6.0)[None])
    space = tangent_space(params, GROUPS)
    assert space.size == TANGENTS - 9
    # While norms are unknown, all groups count.
    traced = jax.jit(lambda p: jnp.zeros(tangent_space(p, GROUPS).size))(params)
    assert traced.size == TANGENTS
    u = space.random(jax.random.key(0))
    assert not u["a"]["kernel"][:, 0].any()
    ones = jax.tree.map(jnp.ones_like, params)
    moved = space.at(ones)["a"]["kernel"]
    assert not moved[:, 0].any()
    assert (moved[:, 1:] != params["a"]["kernel"][:, 1:]).any()

    # A loss that is differentiable where the group vanishes.
    def smooth(p):
        return jnp.sum(jnp.sin(p["a"]["kernel"]) ** 2)

    found = hessian(smooth, params, groups=GROUPS).matvec(ones)["a"]["kernel"]
    assert jnp.isfinite(found).all()
    assert not found[:, 0].any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_widened_and_other_leaves_have_no_steps(dtype):
    params = {
        "w": jnp.array([3.0, 4.0], dtype),
        "count": jnp.array(3),
        "key": jax.random.key(0),
        "masked": optax.MaskedNode(),
        "none": None,
    }
    groups = {
        "w": ScaleGroup(0), "count": None, "key": None,
        "masked": None, "none": None,
    }  # fmt: skip
    space = tangent_space(params, groups)
    u = space.random(jax.random.key(0))
    assert u["w"].dtype == jnp.float32
    assert u["count"] is u["key"] is u["none"] is None
    at = space.at(u)
    assert at["w"].dtype == jnp.float32
    assert at["count"] is params["count"]
    assert space.size == 1
    curvature = hessian(
        lambda p: jnp.sum(p["w"].astype(jnp.float32) ** 3),
        params,
        groups=groups,
    )
    found = eigenpairs(curvature, jax.random.key(0), num_matvecs=1).values
    # At w = 5 (cos t, sin t): 125 d²/dt² (cos³ t + sin³ t) at tan t = 4/3.
    c, s = 0.6, 0.8
    exact = 125 * (6 * c * s * s - 3 * c**3 + 6 * s * c * c - 3 * s**3)
    np.testing.assert_allclose(found, [exact], rtol=1e-5)


def test_the_retraction_of_optimizers_has_no_derivatives_at_zero():
    """The reason why the space has a map of its own."""
    w = jnp.array([3.0, 4.0])
    plan = make_plan(ScaleGroup(0), w)
    leaves = plan.select(w)
    r = geometry.norm(plan, leaves)

    def function(x):
        return x[0] ** 2 + 2 * x[1] ** 2 + x[0] ** 3

    space = tangent_space(w, ScaleGroup(0))
    exact, gradient = plain(function, w)
    v = np.asarray(w) / 5
    projection = np.eye(2) - np.outer(v, v)
    curved = 25 * exact - 5 * gradient @ v * np.eye(2)

    def derivatives(f):
        return [jax.jit(d(f))(jnp.zeros(2)) for d in (jax.grad, jax.hessian)]

    slope, curvature = derivatives(lambda u: function(space.at(u)))
    # Sums of a few numbers of size 100.
    close(slope, 5 * projection @ gradient, atol=1e-12)
    close(curvature, projection @ curved @ projection, atol=1e-12)
    wrong, _ = derivatives(
        lambda u: function(geometry.retract(plan, leaves, {"": 5 * u}, r)[""])
    )
    assert not wrong.any()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"groups": {"w": ScaleGroup(0)}}, "'b'"),
        ({"units": {"w": jnp.ones((4, 6))}}, "units have nothing at 'b'"),
        ({"units": {"w": jnp.ones(4), "b": None}}, r"'w'.*\(4, 6\)"),
    ],
)
def test_what_does_not_fit_is_an_error(change, match):
    params = {"w": W, "b": jnp.ones(6)}
    with pytest.raises(ValueError, match=match):
        tangent_space(params, **change)


def test_steps_that_do_not_fit_are_an_error():
    space = tangent_space(
        {"w": W, "b": jnp.ones(6)}, {"w": ScaleGroup(0), "b": None}
    )
    with pytest.raises(ValueError, match=r"\(4, 6\).*'w'|'w'.*\(4, 6\)"):
        space.at({"w": jnp.ones(3), "b": jnp.ones(6)})
    with pytest.raises(ValueError, match="'b'"):
        space.at({"w": W, "b": jnp.ones(5)})


@pytest.mark.parametrize("groups", [None, ScaleGroup(0)])
def test_complex_parameters_are_refused(groups):
    with pytest.raises(TypeError, match="complex"):
        tangent_space(jnp.ones(2, complex), groups)
