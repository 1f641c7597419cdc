"""Losses by which the analysis was taken in, each beside one that it proves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax import ScaleGroup
from psi_optax._compat import enable_x64
from tests.invariance.losses import arrays, normalized, report_on

X = arrays(x=(64, 6))["x"]
W, V = arrays(w=(6, 4), v=(6, 2)).values()
MASK = jnp.where(jnp.arange(64) % 3 == 0, -jnp.inf, 0.0)
METHODS = ["analysis", "both"]


def finding(function, method, **params):
    def shifted(params, x):
        return function(params, x) + 0.1

    return report_on(shifted, params, X, method=method)


@pytest.mark.parametrize("method", METHODS)
def test_a_threshold_of_one_element_is_no_epsilon_of_a_norm(method):
    def threshold(params, x):
        h = x @ params["w"]
        return normalized(jnp.where(h**2 > 1e-3, h, 5.0))

    def guarded(params, x):
        w = params["w"]
        square = jnp.sum(w**2, 0, keepdims=True)
        return x @ (w / jnp.where(square > 1e-12, jnp.sqrt(square), 1.0))

    assert finding(threshold, "analysis", w=W)["w"].group is None
    assert finding(guarded, method, w=W)["w"].group == ScaleGroup(0)


@pytest.mark.parametrize("method", METHODS)
def test_signs_matter_alone_where_no_epsilon_does(method):
    def scaled(params, x, epsilon):
        return normalized(x[:, :4] * params["g"][None], epsilon=epsilon)

    small = jnp.array([0.1, -0.05, 0.2, -0.1])
    exact = finding(lambda p, x: scaled(p, x, 0.0), method, g=small)
    assert exact["g"].kind == "inert"
    kept = finding(lambda p, x: scaled(p, x, 1e-3), method, g=small)
    assert kept["g"].kind == "proved up to epsilon"
    assert kept["g"].group == ScaleGroup(())


REARRANGED = {
    "broadcast": lambda h: jnp.where((-jnp.inf == MASK)[:, None], 1.0, h),
    "transpose": lambda h: jnp.where(
        (jnp.tile(MASK[None], (4, 1)) == -jnp.inf).T, 1.0, h
    ),
    "reshape": lambda h: jnp.where((-jnp.inf != MASK).reshape(64, 1), h, 1.0),
}


@pytest.mark.parametrize("name", REARRANGED)
def test_an_infinity_of_data_is_no_zero_of_weights(name):
    def function(params, x):
        return normalized(REARRANGED[name](x @ params["w"]))

    assert finding(function, "analysis", w=W)["w"].group is None
    normed = finding(lambda p, x: normalized(x @ p["w"]), "analysis", w=W)
    assert normed["w"].group == ScaleGroup(0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_what_a_guard_adds_to_zeros_counts(sign):
    def function(params, x, value):
        h = jax.nn.relu(x @ params["v"])
        n = jnp.sum(h * h, 1, keepdims=True)
        return normalized(
            x @ params["w"] + sign * jnp.where(n == 0, value, 0.0)
        )

    added = finding(lambda p, x: function(p, x, 5.0), "analysis", w=W, v=V)
    assert added["w"].group is None
    nothing = finding(lambda p, x: function(p, x, 0.0), "analysis", w=W, v=V)
    assert nothing["w"].group == ScaleGroup(0)


def test_numbers_beyond_all_and_empty_arrays():
    def large(params, x):
        with enable_x64(True):
            number = jnp.full((4,), 1e200) ** 2 + jnp.full((4,), 1e120) ** 3
        return (
            normalized(x @ params["w"])
            * jnp.isfinite(number).astype(x.dtype)[None]
        )

    assert finding(large, "analysis", w=W)["w"].group == ScaleGroup(0)

    def empty(params, x):
        nothing = (x[:, :0] @ params["z"]).reshape(4, -1)
        return normalized(x @ params["w"]) + jnp.sum(
            params["z"].reshape(-1, 2) + 0.0 * jnp.sum(nothing)
        )

    report = finding(empty, "analysis", w=W, z=jnp.zeros((0, 4)))
    assert report["w"].group == ScaleGroup(0)
    assert report["z"].kind == "inert"
    assert np.size(report["z"].shape) == 2
