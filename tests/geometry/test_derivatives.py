r"""Derivatives of first and second order through a step of zero.

Let a step t, in units of the norm s = |w|, lead from w = s v to
\(\gamma(t) = s\,(v + P t - v\,|P t|^2/2) + O(t^3)\), with P the projection
orthogonal to v: so do both retractions of the tangent part. For a smooth f with
gradient g and Hessian H at w,

\[\nabla (f\circ\gamma)(0) = s\,P g, \qquad
  \nabla^2 (f\circ\gamma)(0) = s^2 P H P - s\,\langle v, g\rangle\,P.\]

With u = s t, in units of the weights, that is the Riemannian Hessian of f on
the sphere of radius s, \(P H P - \langle w, g\rangle/s^2\,P\). A step taken
whole, v + t brought to the sphere, has besides
\(-s^2/s\,(P g\,v^\top + v\,g^\top P)\).

Derivatives by w, and by both, are those of the same map written plainly: a
division of v + t by its norm, whose derivatives JAX knows.
"""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax import ScaleGroup, geometry, psi_sgd
from psi_optax.groups import make_plan
from tests.compilation import quick_jit

SIZE = 4
RADIUS = 1.7
RANDOM = np.random.RandomState(0)
MIXED = RANDOM.normal(size=(SIZE, SIZE))
START = RANDOM.normal(size=SIZE)
START *= RADIUS / np.linalg.norm(START)
# Sums of four terms of size one to fifty, and ten operations.
CLOSE = {"rtol": 1e-12, "atol": 1e-12}

pytestmark = pytest.mark.usefixtures("x64")


def loss(w):
    """Smooth, with a third derivative, and not scale-invariant."""
    return jnp.sum(jnp.sin(MIXED @ w)) + jnp.sum(w**4)


def plan():
    return make_plan(ScaleGroup(axes=0), START)


def leaves(x):
    return dict.fromkeys(plan().paths, x)


def by_step(retraction, tangent, radius):
    """The weights after a step t, by the closed form."""

    def after(w, t):
        [name] = plan().group_shapes
        sphere = {
            None: None,
            "norm": {name: jnp.linalg.norm(w)},
            "number": {name: jnp.asarray(RADIUS)},
        }[radius]
        update = geometry.step(
            plan(),
            leaves(w),
            leaves(t),
            plan().full(1.0),
            sphere,
            retraction=retraction,
            tangent=tangent,
        )
        return w + sum(update.values())

    return after


def by_retract(w, t):
    """The weights after a step t, by the retraction of the sum."""
    [name] = plan().group_shapes
    update = geometry.retract(
        plan(),
        leaves(w),
        leaves(t * jnp.linalg.norm(w)),
        {name: jnp.asarray(RADIUS)},
    )
    return w + sum(update.values())


def plainly(retraction, tangent, radius):
    """The same map, near t = 0, without any rule."""

    def after(w, t):
        s = jnp.linalg.norm(w)
        r = RADIUS if radius == "number" else s
        v = w / s
        t = t - v * (v @ t) if tangent else t
        if retraction is None:
            return r * (v + t)
        if retraction == "exponential":
            # To the second order in t.
            return r * (v * (1 - t @ t / 2) + t * (1 - t @ t / 6))
        return r * (v + t) / jnp.linalg.norm(v + t)

    return after


# A step, whether it is tangent, and the radius.
CURVES = [
    ("projection", True),
    ("exponential", True),
    (None, True),
    ("projection", False),
    (None, False),
]
WAYS = [(*curve, radius) for curve in CURVES for radius in (None, "norm")]
WAYS += [(*way, "number") for way in CURVES if way[0] is not None]


def derivatives(after):
    """Value, gradient and Hessian of the loss by (w, t) at t = 0."""

    def total(x):
        w, t = jnp.split(x, 2)
        return loss(after(w, t))

    x = jnp.concatenate([START, jnp.zeros(SIZE)])
    both = quick_jit(lambda x: (jax.grad(total)(x), jax.hessian(total)(x)))
    return both(x)


@pytest.mark.parametrize(("retraction", "tangent", "radius"), WAYS)
def test_a_zero_step_has_the_derivatives_of_its_map(
    retraction, tangent, radius
):
    after = by_step(retraction, tangent, radius)
    got = derivatives(after)
    expected = derivatives(plainly(retraction, tangent, radius))
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_allclose(x, y, **CLOSE)
    # The value is that of the rule: not a bit moves.
    still = quick_jit(after)(START, jnp.zeros(SIZE))
    np.testing.assert_array_equal(still, START)


@pytest.mark.parametrize("retraction", ["projection", "exponential"])
def test_the_third_derivative_along_a_step(retraction):
    """Where the sine of the exponential departs from its angle."""
    direction = jnp.asarray(RANDOM.normal(size=SIZE))

    def third(make):
        def total(length):
            return loss(make(retraction, True, "number")(START, length * t))

        t = direction
        return quick_jit(jax.grad(jax.grad(jax.grad(total))))(0.0)

    # Sums of numbers of up to 1e3.
    np.testing.assert_allclose(third(by_step), third(plainly), rtol=1e-11)


def test_a_zero_update_has_the_derivatives_of_the_retraction():
    got = derivatives(by_retract)
    expected = derivatives(plainly("projection", False, "number"))
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_allclose(x, y, **CLOSE)
    still = quick_jit(by_retract)(START, jnp.zeros(SIZE))
    np.testing.assert_array_equal(still, START)


@pytest.mark.parametrize("retraction", ["projection", "exponential"])
@pytest.mark.parametrize("radius", [None, "norm", "number"])
def test_they_are_the_riemannian_ones_of_the_sphere(retraction, radius):
    gradient, hessian = derivatives(by_step(retraction, True, radius))
    g, H = jax.grad(loss)(START), jax.hessian(loss)(START)
    P = np.eye(SIZE) - np.outer(START, START) / RADIUS**2
    riemannian = P @ H @ P - START @ g / RADIUS**2 * P
    tangent = slice(SIZE, None)
    np.testing.assert_allclose(gradient[tangent], RADIUS * P @ g, **CLOSE)
    np.testing.assert_allclose(
        hessian[tangent, tangent], RADIUS**2 * riemannian, **CLOSE
    )
    # The curvature of the sphere is a part of it, and not a small one.
    assert np.max(np.abs(START @ g * P)) > 1


def test_differences_of_the_plain_map_are_its_derivatives():
    # What everything is compared with, against differences: off by h^2/6 of
    # derivatives up to 1e3, and by 1e-16/h of losses up to 1e2.
    after, h = plainly("exponential", True, "number"), 1e-5
    x = np.concatenate([START, np.zeros(SIZE)])

    @quick_jit
    @jax.grad
    def slope(x):
        return loss(after(*jnp.split(x, 2)))

    expected = derivatives(after)[1]
    for i, e in enumerate(h * np.eye(2 * SIZE)):
        difference = (slope(x + e) - slope(x - e)) / (2 * h)
        np.testing.assert_allclose(expected[i], difference, atol=1e-6)


def test_a_short_step_has_nearly_the_derivatives_of_none():
    """Nothing jumps where the rules for zero end, nor where a series does."""

    def total(t):
        return loss(by_step("exponential", True, "number")(START, t))

    hessian = quick_jit(jax.hessian(total))

    def by_rate(rate):
        return hessian(rate * np.ones(SIZE))

    exact = by_rate(0.0)
    for rate in (1e-150, 1e-20, 1e-8):
        # The third derivative, up to a thousand, times the step.
        np.testing.assert_allclose(by_rate(rate), exact, rtol=1e-12, atol=1e-4)
    # The series ends where the angle is a half, which is a rate of 0.2 or so.
    angle = np.linalg.norm(np.ones(SIZE) - START * START.sum() / RADIUS**2)
    below, above = (0.5 / angle * (1 + x) for x in (-1e-9, 1e-9))
    np.testing.assert_allclose(by_rate(below), by_rate(above), atol=1e-5)


def old_maximum(smooth, value):
    """What `jnp.maximum` and a constant made of derivatives."""
    return value


@pytest.mark.parametrize("way", ["projection", "exponential", "retract"])
def test_without_the_rule_for_derivatives_they_are_wrong(way, monkeypatch):
    for name in ("retraction", "step"):
        module = importlib.import_module(f"psi_optax.geometry.{name}")
        monkeypatch.setattr(module, "replace_value", old_maximum)
    jax.clear_caches()
    if way == "retract":
        after, plain = by_retract, plainly("projection", False, "number")
    else:
        after = by_step(way, True, "number")
        plain = plainly(way, True, "number")
    expected = derivatives(plain)
    got = derivatives(after)
    jax.clear_caches()
    off = [np.max(np.abs(x - y)) for x, y in zip(got, expected, strict=True)]
    assert max(off) > 1


def test_a_group_of_norm_zero_has_finite_derivatives():
    # Two groups, of which the first has no direction.
    w = np.stack([np.zeros(SIZE), START], axis=1)
    tx = psi_sgd(0.1, ScaleGroup(axes=0), radius=RADIUS)

    def total(x):
        w, g = x
        updates, _ = tx.update(g, tx.init(w), w)
        return loss((w + updates)[:, 0]) + loss((w + updates)[:, 1])

    x = jnp.stack([w, np.zeros((SIZE, 2))])
    both = quick_jit(lambda x: (jax.grad(total)(x), jax.hessian(total)(x)))
    gradient, hessian = both(x)
    assert np.isfinite(gradient).all()
    assert np.isfinite(hessian).all()
    # Nothing moves it, and it is itself.
    np.testing.assert_array_equal(gradient[1, :, 0], 0)
    np.testing.assert_allclose(
        gradient[0, :, 0], jax.grad(loss)(jnp.zeros(SIZE)), **CLOSE
    )
    assert np.any(gradient[1, :, 1] != 0)
