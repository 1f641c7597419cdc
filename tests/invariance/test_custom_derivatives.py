"""Inert is what no gradient reaches, also where a function brings its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec as P

from psi_optax import ScaleGroup, find_groups
from tests.invariance.losses import arrays, normalized, unit
from tests.invariance.traps import with_derivative

PARAMS = arrays(w=(4, 3), v=(3, 2))
X = arrays(x=(8, 4))["x"]


def columns(w):
    return unit(w, 0)


def head(h, params):
    return jnp.sum(jnp.tanh(h @ params["v"]) ** 3)


def finding(function, method="both", path="w"):
    def loss(params, x):
        return head(function(params["w"], x), params)

    return find_groups(loss, PARAMS, X, method=method)[path]


signs = with_derivative(jnp.sign, lambda g, w: (jnp.zeros_like(g),))
straight = with_derivative(jnp.sign, lambda g, w: (g,))
straight_unit = with_derivative(columns, lambda g, w: (g,))
clipped = with_derivative(lambda h: h, lambda g, h: (jnp.clip(g, -1e-3, 1e-3),))
halved = with_derivative(lambda h: h, lambda g, h: (g / 2,))


@pytest.mark.parametrize("method", ["analysis", "both"])
def test_a_straight_through_estimator_is_not_inert(method):
    report = finding(lambda w, x: x @ straight(w), method)
    assert report.kind == "ordinary"
    # The control: a sign whose derivative is the true one.
    for function in (signs, jnp.sign):
        report = finding(lambda w, x, f=function: x @ f(w), method)
        assert report.kind == "inert"


def test_a_stopped_gradient_is_a_straight_through_estimator_too():
    def stopped(w, x):
        return x @ (w / jax.lax.stop_gradient(jnp.abs(w)))

    report = finding(stopped)
    assert report.kind == "ordinary"
    assert "stop_gradient" in report.reason
    assert finding(lambda w, x: x @ (w / jnp.abs(w))).kind == "inert"


def test_the_derivative_of_a_sign_that_scales_as_a_true_one_would():
    """As one over the weights do: but for all elements it is not zero."""

    @jax.custom_jvp
    def sign(w):
        return jnp.sign(w)

    @sign.defjvp
    def derivative(primals, tangents):
        return sign(*primals), tangents[0] / jnp.abs(primals[0])

    for method in ("analysis", "both"):
        assert finding(lambda w, x: x @ sign(w), method).kind == "ordinary"


def test_a_derivative_has_to_scale_as_that_of_the_function_does():
    """Or the gradient is not one over the scale of the weights."""
    for function in (
        lambda w, x: x @ straight_unit(w),
        lambda w, x: normalized(clipped(x @ w)),
    ):
        report = finding(function)
        assert report.group is None
        assert report.reason
    for function in (
        lambda w, x: x @ columns(w),
        lambda w, x: normalized(halved(x @ w)),
    ):
        assert finding(function).group == ScaleGroup(0)


def test_a_derivative_that_cannot_be_followed_is_unknown():
    def pullback(g, h):
        raise NotImplementedError

    function = with_derivative(lambda h: 2 * h, pullback)
    report = finding(lambda w, x: normalized(function(x @ w)), "analysis")
    assert report.group is None
    assert "custom derivative" in report.reason


def test_gradients_that_go_where_values_do_not():
    around = with_derivative(lambda h, w: h, lambda g, h, w: (g, g.T @ h))

    def loss(params, x):
        h = around(x @ params["u"], params["w"])
        return jnp.sum(jnp.tanh(h) ** 3)

    params = {"u": PARAMS["w"], "w": jnp.ones((3, 3))}
    report = find_groups(loss, params, X)
    assert report["w"].kind != "inert"

    def without(params, x):
        return jnp.sum(jnp.tanh(x @ params["u"]) ** 3)

    assert find_groups(without, params, X)["w"].kind == "inert"


# -- means with a derivative of their own --------------------------------------

same = with_derivative(lambda h: h, lambda g, h: (jnp.tanh(g),))
no_gradient = with_derivative(lambda m: m, lambda g, m: (jnp.zeros_like(m),))
elsewhere = with_derivative(
    lambda m, v: m, lambda g, m, v: (g, g.reshape(-1, 3).sum(0) * v)
)


def stacked(function, mean, *args):
    """Take the mean as a part of a stack."""
    return function(jnp.stack([mean, mean]), *args)[0]


MEANS = {
    "of a mean": lambda h, v: no_gradient(h.mean(0)),
    "of what it is of": lambda h, v: same(h).mean(0),
    "of another parameter": lambda h, v: elsewhere(h.mean(0), v),
    "of a stack": lambda h, v: stacked(no_gradient, h.mean(0)),
    "of a stack and another": lambda h, v: stacked(elsewhere, h.mean(0), v),
}


@pytest.mark.parametrize("method", ["analysis", "both"])
@pytest.mark.parametrize("name", MEANS)
def test_what_cancels_in_a_value_has_a_gradient(name, method):
    params = {"w": PARAMS["w"], "b": jnp.ones(3), "u": jnp.ones(3)}

    def report(mean):
        def loss(params, x):
            h = x @ params["w"] + params["b"][None]
            y = (h - mean(h, params["u"])[None]) / jnp.std(h, 0)[None]
            return jnp.sum(jnp.tanh(y) * jnp.arange(24.0).reshape(8, 3))

        gradient = jax.grad(loss)(params, X)
        found = find_groups(loss, params, X, method=method)
        for path in ("b", "u"):
            if jnp.max(jnp.abs(gradient[path])) > 1e-3:
                assert found[path].kind != "inert"
        return found

    path = "u" if "another" in name else "b"
    assert report(MEANS[name])[path].kind != "inert"
    # The control: the true derivative of the mean.
    found = report(lambda h, v: h.mean(0))
    assert found["w"].group == ScaleGroup(0)
    assert found["b"].kind == "inert"


def on_devices(function):
    """A function of weights and rows, the rows divided over devices."""
    mesh = Mesh(np.array(jax.devices()[:4]), ("d",))

    def part(w, x):
        y = function(w, x)
        return jax.lax.psum(jnp.sum(jnp.tanh(y) ** 3), "d")

    whole = jax.shard_map(
        part, mesh=mesh, in_specs=(P(), P("d")), out_specs=P()
    )
    return lambda params, x: whole(params["w"], x)


def test_derivatives_are_followed_where_arrays_vary_over_a_mesh():
    def of(function):
        report = find_groups(on_devices(function), PARAMS, X, method="analysis")
        return report["w"]

    # ReLU has a derivative of its own, and scales as its argument does.
    assert of(lambda w, x: columns(jax.nn.relu(x @ w))).group == ScaleGroup(0)
    assert of(lambda w, x: jax.nn.relu(x @ w)).group is None
    assert of(lambda w, x: columns(halved(x @ w))).group == ScaleGroup(0)
    assert of(lambda w, x: columns(clipped(x @ w))).group is None
    # Of an array that is the same on all devices, beside one that is not.
    product = with_derivative(
        lambda h, w: h * w[:1], lambda g, h, w: (g * w[:1], 0 * w)
    )
    assert of(
        lambda w, x: columns(product(x @ w, columns(w)))
    ).group == ScaleGroup(0)
    assert of(lambda w, x: product(columns(x @ w), w)).group is None
