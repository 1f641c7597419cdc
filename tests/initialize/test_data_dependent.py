"""data_dependent_initialization: one batch has mean zero and variance one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from psi_optax import ScaleGroup
from psi_optax.initialize import data_dependent_initialization
from psi_optax.reparametrize import weight_normalization
from tests.initialize.networks import (
    batch_norm,
    data,
    draw,
    preactivations,
    start,
)

pytestmark = pytest.mark.usefixtures("x64")

LAYERS = [("k0", "b0"), ("k1", "b1"), ("k2", "b2")]
HIDDEN = ("k0", "k1", "k2")
# Sums of 256 examples, through three layers.
CLOSE = {"rtol": 0, "atol": 1e-14}


def initialized(params, layers=LAYERS, **options):
    return data_dependent_initialization(
        preactivations, params, data()[0], layers, **options
    )


def test_hidden_units_have_mean_zero_and_variance_one():
    found = preactivations(initialized(start()), data()[0])
    before = preactivations(start(), data()[0])
    for kernel in HIDDEN:
        np.testing.assert_allclose(found[kernel].mean(0), 0, **CLOSE)
        np.testing.assert_allclose(found[kernel].std(0), 1, **CLOSE)
        assert np.abs(before[kernel].std(0) - 1).max() > 0.3


def test_the_network_is_that_of_batch_normalization_on_this_batch():
    x = data()[0]
    found = preactivations(initialized(start()), x)["k3"]
    expected = preactivations(start(), x, batch_norm)["k3"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert np.abs(found - preactivations(start(), x)["k3"]).max() > 0.1
    # In the other order a layer changes after the one that it feeds.
    wrong = initialized(start(), LAYERS[::-1])
    assert np.abs(preactivations(wrong, x)["k3"] - expected).max() > 0.1


def test_it_is_the_initialization_of_weight_normalization():
    x, params = data()[0], start()
    groups = {
        path: ScaleGroup(0) if path in HIDDEN else None for path in params
    }
    wn = weight_normalization(groups)
    raw = wn.init(initialized(params))
    unit = params["k0"] / jnp.linalg.norm(params["k0"], axis=0, keepdims=True)
    np.testing.assert_allclose(raw.gains["k0"], 1 / (x @ unit).std(0), **CLOSE)
    found = preactivations(wn.apply(raw), x)["k3"]
    expected = preactivations(initialized(params), x)["k3"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_lsuv_has_one_deviation_for_a_layer():
    orthonormal = jax.nn.initializers.orthogonal()
    params = {
        path: orthonormal(jax.random.key(0), x.shape, x.dtype)
        if path in HIDDEN
        else 0 * x
        for path, x in start().items()
    }
    moved = initialized(params, centered=False, per_unit=False)
    found = preactivations(moved, data()[0])
    for kernel in HIDDEN:
        np.testing.assert_allclose(found[kernel].std(), 1, **CLOSE)
        assert np.abs(found[kernel].std(0) - 1).max() > 0.01
        # Kernels are still multiples of orthonormal ones.
        ratio = moved[kernel] / params[kernel]
        np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-12)


def test_options_and_layers_without_a_bias():
    found = preactivations(initialized(start(), centered=False), data()[0])
    before = preactivations(start(), data()[0])
    mean = before["k0"].mean(0) / before["k0"].std(0)
    np.testing.assert_allclose(found["k0"].mean(0), mean, **CLOSE)
    params = {path: x for path, x in start().items() if path != "b0"}

    def without(params, x):
        return {"k0": x @ params["k0"]}

    moved = data_dependent_initialization(
        without, params, data()[0], [("k0", None)]
    )
    found = without(moved, data()[0])["k0"]
    np.testing.assert_allclose(found.std(0), 1, **CLOSE)
    assert np.abs(found.mean(0)).max() > 0.01


def test_convolutions_of_linen():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            for width in (6, 4):
                conv = nn.Conv(width, (3, 3), param_dtype=x.dtype)
                x = nn.relu(conv(x))
            return x

    net, x = Net(), draw(8, 5, 5, 3)
    params = net.init(jax.random.key(0), x)["params"]

    def outputs(params, x):
        _, seen = net.apply({"params": params}, x, capture_intermediates=True)
        return {
            f"{name}/kernel": seen["intermediates"][name]["__call__"][0]
            for name in params
        }

    layers = [(f"Conv_{i}/kernel", f"Conv_{i}/bias") for i in range(2)]
    moved = data_dependent_initialization(outputs, params, x, layers)
    for t in outputs(moved, x).values():
        np.testing.assert_allclose(t.mean((0, 1, 2)), 0, **CLOSE)
        np.testing.assert_allclose(t.std((0, 1, 2)), 1, **CLOSE)
    assert jax.tree.structure(moved) == jax.tree.structure(params)


def test_dtypes_and_compilation():
    params = jax.tree.map(lambda x: x.astype(jnp.float32), start())
    x = data()[0].astype(jnp.float32)

    def run(params, x):
        return data_dependent_initialization(preactivations, params, x, LAYERS)

    found, compiled = run(params, x), jax.jit(run)(params, x)
    for path, moved in found.items():
        assert moved.dtype == jnp.float32
        np.testing.assert_allclose(moved, compiled[path], rtol=1e-4, atol=1e-5)


def test_errors():
    with pytest.raises(ValueError, match="params have no 'k9'"):
        initialized(start(), [("k9", None)])
    with pytest.raises(ValueError, match="params have no 'b9'"):
        initialized(start(), [("k0", "b9")])
    with pytest.raises(ValueError, match="preactivations have no 'b0'"):
        initialized(start(), [("b0", None)])
    dead = {**start(), "k0": start()["k0"].at[:, jnp.array([2, 5])].set(0)}
    with pytest.raises(ValueError, match="'k0'.*units 2, 5 are constant"):
        initialized(dead)
    infinite = {**start(), "b0": start()["b0"].at[3].set(jnp.nan)}
    with pytest.raises(ValueError, match="units 3"):
        initialized(infinite)
    with pytest.raises(ValueError, match=r"'k0' of shape \(12, 16\).*256"):
        data_dependent_initialization(
            lambda p, x: {"k0": (x @ p["k0"]).T}, start(), data()[0], LAYERS
        )
    for option in ("centered", "per_unit"):
        with pytest.raises(TypeError, match=option):
            initialized(start(), **{option: 1})
