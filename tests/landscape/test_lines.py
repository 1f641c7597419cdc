"""Surfaces, geodesics and gradients along lines ignore the scale of groups."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax import ScaleGroup
from psi_optax.landscape import (
    geodesic,
    gradient_probe,
    hessian,
    loss_surface,
    tangent_space,
)
from tests.landscape.network import GROUPS, loss, make_net, rescaled

pytestmark = pytest.mark.usefixtures("x64")

FACTORS = np.exp(2 * np.random.RandomState(0).normal(size=(1, 6)))
STEPS = jnp.array([-1.0, -0.5, 0.0, 0.5, 1.0])


def lines(params, args, groups):
    """Return a surface along two fixed directions."""
    space = tangent_space(params, GROUPS)
    directions = [
        space.random(jax.random.key(i), filter_normalized=True) for i in (5, 6)
    ]
    return loss_surface(
        loss, params, *args, directions=directions, steps=STEPS, groups=groups
    )


def test_a_surface_is_that_of_the_steps_and_ignores_scale(net):
    params, args = net
    other = rescaled(params, FACTORS, 1e-3)
    found, same = lines(params, args, GROUPS), lines(other, args, GROUPS)
    assert found.shape == (5, 5)
    # A loss of size 1, through a dozen of roundings.
    np.testing.assert_allclose(found, same, rtol=1e-13)
    raw, changed = lines(params, args, None), lines(other, args, None)
    assert abs(raw - changed).max() > 0.1
    space = tangent_space(params, GROUPS)
    a, b = (
        space.random(jax.random.key(i), filter_normalized=True) for i in (5, 6)
    )
    u = jax.tree.map(lambda x, y: 0.5 * x - 1.0 * y, a, b)
    np.testing.assert_allclose(found[3, 0], loss(space.at(u), *args), 1e-13)
    np.testing.assert_allclose(found[2, 2], loss(params, *args), 1e-13)
    traced = jax.jit(lambda p: lines(p, args, GROUPS))(params)
    np.testing.assert_allclose(traced, found, rtol=1e-13)


def test_the_plot_of_filter_normalized_directions_is_ours_at_other_angles(net):
    """Li et al. keep the radial part of a direction."""
    params, args = net
    space = tangent_space(params, GROUPS)

    def at(t):
        theirs, ours = {**params}, jax.tree.map(jnp.zeros_like, params)
        for name in "ab":
            w = np.asarray(params[name]["kernel"])
            d = np.random.RandomState(ord(name)).normal(size=w.shape)
            v, e = (x / np.linalg.norm(x, axis=0) for x in (w, d))
            theirs[name] = {"kernel": w + t * e * np.linalg.norm(w, axis=0)}
            cosine = (v * e).sum(0)
            across = e - v * cosine
            sine = np.linalg.norm(across, axis=0)
            # Steps are tangents of angles; here all angles are acute.
            tangent = t * sine / (1 + t * cosine)
            ours[name] = {"kernel": jnp.array(across / sine * tangent)}
        return theirs, ours

    for t in (-0.5, -0.2, 0.2, 0.5, 1.0):
        theirs, ours = at(t)
        expected = loss(theirs, *args)
        np.testing.assert_allclose(loss(space.at(ours), *args), expected, 1e-13)
        # The control: the step t of the tangent direction.
        straight = jax.tree.map(lambda x: 2 * x, ours)
        assert abs(loss(space.at(straight), *args) - expected) > 1e-3


def test_a_geodesic_ignores_scale_and_keeps_norms_between(net):
    params, args = net
    end = make_net(seed=3).params
    times = jnp.linspace(0.0, 1.0, 9)

    def losses(end, groups):
        path = geodesic(params, end, groups)
        return jax.jit(jax.vmap(lambda t: loss(path(t), *args)))(times)

    other = rescaled(end, FACTORS)
    # A loss of size 1, through a dozen of roundings.
    np.testing.assert_allclose(
        losses(end, GROUPS), losses(other, GROUPS), rtol=1e-13
    )
    assert abs(losses(end, None) - losses(other, None)).max() > 1e-2
    path = geodesic(params, other, GROUPS)
    norms = [
        np.linalg.norm(p["a"]["kernel"], axis=0)
        for p in (params, other, path(0.25))
    ]
    expected = norms[0] ** 0.75 * norms[1] ** 0.25
    np.testing.assert_allclose(norms[2], expected, rtol=1e-14)
    np.testing.assert_array_equal(
        path(0.0)["a"]["kernel"], params["a"]["kernel"]
    )
    np.testing.assert_allclose(
        path(1.0)["a"]["kernel"], other["a"]["kernel"], rtol=1e-12, atol=1e-13
    )
    np.testing.assert_allclose(
        path(0.25)["head"]["kernel"],
        0.75 * params["head"]["kernel"] + 0.25 * end["head"]["kernel"],
        rtol=1e-13,
    )


def test_a_geodesic_turns_at_constant_speed():
    start, end = jnp.array([2.0, 0.0]), jnp.array([0.0, 8.0])
    path = geodesic(start, end, ScaleGroup(0))
    for t in (0.25, 0.5, 0.75):
        angle = t * np.pi / 2
        expected = 2 * 4**t * np.array([np.cos(angle), np.sin(angle)])
        np.testing.assert_allclose(path(t), expected, rtol=1e-14, atol=1e-14)


def test_groups_without_a_geodesic():
    start = jnp.array([[3.0, 3.0, 0.0, 0.0, 1.0], [4.0, 4.0, 0.0, 0.0, 2.0]])
    end = jnp.array([[-6.0, 3.0, 0.0, 1.0, 3.0], [-8.0, 4.0, 0.0, 0.0, 1.0]])
    for dtype in ("float32", "float64"):
        path = geodesic(start.astype(dtype), end.astype(dtype), ScaleGroup(0))
        middle = path(0.3)
        # Opposite directions, and a zero at one end.
        assert jnp.isnan(middle).all(0).tolist() == [
            *(True, False, False, True, False)
        ]
        # Equal groups stay exactly, and so do zeros.
        np.testing.assert_array_equal(middle[:, 1:3], start[:, 1:3])


def test_other_leaves_of_a_geodesic_are_those_of_the_start():
    start = {"w": jnp.ones(2), "count": jnp.array(1)}
    end = {"w": jnp.zeros(2), "count": jnp.array(5)}
    found = geodesic(start, end)(0.5)
    assert found["count"] == 1
    assert found["w"].tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match="'w'"):
        geodesic(start, {"w": jnp.zeros(3), "count": end["count"]})(0.5)


def test_a_probe_measures_along_the_gradient_and_ignores_scale(net):
    params, args = net
    steps = jnp.array([1e-5, 0.05, 0.2])
    found = gradient_probe(loss, params, *args, steps=steps, groups=GROUPS)
    other = rescaled(params, FACTORS, 1e-3)
    same = gradient_probe(loss, other, *args, steps=steps, groups=GROUPS)
    for a, b in zip(found, same, strict=True):
        # The first step is 1e-5: a difference of gradients of 1e-5 of them.
        np.testing.assert_allclose(a, b, rtol=1e-9)
    raw = gradient_probe(loss, params, *args, steps=steps)
    changed = gradient_probe(loss, other, *args, steps=steps)
    assert changed.smoothness[0] > 2 * raw.smoothness[0]
    np.testing.assert_allclose(found.loss, loss(params, *args), rtol=1e-13)


def norm(tree):
    return np.sqrt(sum(jnp.vdot(x, x) for x in jax.tree.leaves(tree)))


def test_a_small_probe_is_the_product_with_the_hessian(net):
    params, args = net
    space = tangent_space(params, GROUPS)
    zero = jax.tree.map(jnp.zeros_like, params)
    gradient = jax.jit(jax.grad(lambda u: loss(space.at(u), *args)))
    g = gradient(zero)
    curved = hessian(loss, params, *args, groups=GROUPS).matvec(g)
    found = gradient_probe(
        loss, params, *args, steps=[1e-5, 0.3], groups=GROUPS
    )
    # The next order is smaller by the step.
    np.testing.assert_allclose(
        found.smoothness[0], norm(curved) / norm(g), rtol=1e-5
    )
    u = jax.tree.map(lambda x: -0.3 * x, g)
    after = gradient(u)
    change = norm(jax.tree.map(jnp.subtract, g, after))
    np.testing.assert_allclose(found.change[1], change, rtol=1e-12)
    product = sum(
        jnp.vdot(x, y)
        for x, y in zip(*map(jax.tree.leaves, (g, after)), strict=True)
    )
    np.testing.assert_allclose(
        found.cosine[1], product / norm(g) / norm(after), rtol=1e-12
    )
    np.testing.assert_allclose(found.losses[1], loss(space.at(u), *args), 1e-12)
    np.testing.assert_allclose(
        found.smoothness[1], change / (0.3 * norm(g)), rtol=1e-12
    )


def test_gradients_before_batchnorm_have_a_third_term():
    """The norm of the gradient before BatchNorm, from that after it."""
    rng = np.random.RandomState(0)
    z, gamma, m = jnp.array(rng.normal(size=(32, 4))), 1.7, 32
    slopes = jnp.array(rng.normal(size=(32, 4)))

    def normalized(z):
        z = z - z.mean(0, keepdims=True)
        return z / jnp.sqrt((z * z).mean(0, keepdims=True))

    def after(o):
        return jnp.sum(jnp.sin(o * slopes))

    before = jax.grad(lambda z: after(gamma * normalized(z)))(z)
    output = jax.grad(after)(gamma * normalized(z))
    mean = output.sum(0) ** 2 / m
    along = (output * normalized(z)).sum(0) ** 2 / m
    total = (output**2).sum(0) - mean
    scale = (gamma / z.std(0)) ** 2
    np.testing.assert_allclose(
        (before**2).sum(0), scale * (total - along), rtol=1e-13
    )
    assert abs((before**2).sum(0) / (scale * total) - 1).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"steps": 0.5}, "shape"),
        ({"steps": []}, "shape"),
        ({"directions": []}, "directions"),
        ({"directions": [{"w": jnp.ones(3)}]}, "'w'"),
    ],
)
def test_bad_surfaces(options, match):
    params = {"w": jnp.ones(2)}
    given = {"directions": [params], "steps": [0.5], **options}
    with pytest.raises(ValueError, match=match):
        loss_surface(lambda p: p["w"] @ p["w"], params, **given)


@pytest.mark.parametrize("steps", [0.1, [0.1, 0.0], [-1.0], [jnp.nan], []])
def test_bad_steps_of_a_probe(steps):
    with pytest.raises(ValueError, match="steps"):
        gradient_probe(lambda w: w @ w, jnp.ones(2), steps=steps)


def test_directions_of_integers_are_floats():
    directions = [jnp.array([1, 0])]
    losses = loss_surface(
        lambda w: w @ w,
        jnp.zeros(2, jnp.float32),
        directions=directions,
        steps=jnp.array([0.5, 1.5], jnp.float32),
    )
    # Exact in binary; truncated coordinates would give 0 and 1.
    np.testing.assert_array_equal(losses, [0.25, 2.25])


def test_a_path_is_called_with_a_number():
    path = geodesic(jnp.array([1.0, 0.0]), jnp.array([0.0, 4.0]))
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        path(jnp.array([0.0, 1.0]))
    assert jax.vmap(path)(jnp.array([0.0, 1.0])).shape == (2, 2)
