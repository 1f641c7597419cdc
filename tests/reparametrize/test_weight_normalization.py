"""weight_normalization: its pair of functions, its groups, and Flax's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn, nnx

from psi_optax import ScaleGroup, find_groups, psi_sgd
from psi_optax.groups import make_plan
from psi_optax.reparametrize import (
    Reparametrized,
    centered,
    normalize,
    orthogonal,
    raw_groups,
    unit,
    weight_normalization,
)
from tests.reparametrize.problem import COLUMNS, along, draw

pytestmark = pytest.mark.usefixtures("x64")

GROUPS = {"k": COLUMNS, "b": None}


def params():
    return {"k": draw(5, 4), "b": draw(4, seed=1)}


def test_apply_undoes_init_to_the_bit():
    w = params()
    wn = weight_normalization(GROUPS)
    got = wn.apply(wn.init(w))
    jax.tree.map(np.testing.assert_array_equal, got, w)
    # Centered: of weights without a mean, up to its rounding.
    wn = weight_normalization(GROUPS, centered)
    w = normalize(w, GROUPS, 2.0, centered=True)
    np.testing.assert_allclose(
        wn.apply(wn.init(w))["k"], w["k"], rtol=0, atol=1e-15
    )
    # It removes the means of others, and nothing else.
    w = params()["k"]
    got = wn.apply(wn.init(params()))["k"]
    rest = w - w.mean(axis=0, keepdims=True)
    np.testing.assert_allclose(got, rest, rtol=0, atol=5e-15)
    assert np.abs(got - w).max() > 0.1


def test_gradients_are_those_of_the_paper():
    """Equation 3: of g, along v; of v, g/|v| times what is tangent to v."""
    wn = weight_normalization(GROUPS)
    raw = wn.init(params())
    raw = raw._replace(gains={"k": draw(4, seed=2)})
    cotangent = draw(5, 4, seed=3)
    found = jax.grad(lambda r: jnp.vdot(wn.apply(r)["k"], cotangent))(raw)
    v, c = np.asarray(raw.weights["k"]), np.asarray(cotangent)
    norms = np.linalg.norm(v, axis=0)
    gain = np.sum(v * c, axis=0) / norms
    direction = (c - gain * v / norms) * np.asarray(raw.gains["k"]) / norms
    close = {"rtol": 0, "atol": 5e-15}
    np.testing.assert_allclose(found.gains["k"], gain, **close)
    np.testing.assert_allclose(found.weights["k"], direction, **close)
    np.testing.assert_allclose(
        along(raw.weights["k"], found.weights["k"]), 0, **close
    )
    assert np.abs(along(jnp.ones((5, 4)), found.weights["k"])).max() > 0.1


def test_zero_filters():
    """With torch, weight_norm gives NaN for the value and the gradient."""
    w = {**params(), "k": draw(5, 4).at[:, 2].set(0)}
    for function in (unit, centered):
        wn = weight_normalization(GROUPS, function)
        raw = wn.init(w)
        assert raw.gains["k"][2] == 0
        np.testing.assert_array_equal(wn.apply(raw)["k"][:, 2], 0)
        found = jax.grad(lambda r, wn=wn: jnp.sum(wn.apply(r)["k"]))(raw)
        assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(found))


def loss(w, x):
    return jnp.mean(jnp.tanh(x @ w["k"] + w["b"][None]) ** 3)


@pytest.mark.parametrize("function", [unit, centered])
def test_raw_groups_are_those_that_are_found(function):
    wn = weight_normalization(GROUPS, function)
    raw, x = wn.init(params()), draw(7, 5, seed=4)
    report = find_groups(lambda r, x: loss(wn.apply(r), x), raw, x)
    assert make_plan(report, raw) == make_plan(raw_groups(GROUPS), raw)
    assert report["weights/k"].kind == "proved"
    assert report["gains/k"].group is None
    assert find_groups(loss, params(), x)["k"].group is None


def test_a_run_on_raw_groups():
    wn = weight_normalization(GROUPS)
    start, x = wn.init(params()), draw(7, 5, seed=4)
    tx = psi_sgd(0.1, raw_groups(GROUPS), ordinary=optax.sgd(0.1))

    def run(raw):
        state = tx.init(raw)
        for _ in range(3):
            g = jax.grad(lambda r: loss(wn.apply(r), x))(raw)
            updates, state = tx.update(g, state, raw)
            raw = optax.apply_updates(raw, updates)
        return raw

    with jax.numpy_dtype_promotion("standard"):
        last = run(start)
        v = {**start.weights, "k": 8 * start.weights["k"]}
        scaled = run(start._replace(weights=v))
    norms = [np.linalg.norm(r.weights["k"], axis=0) for r in (start, last)]
    np.testing.assert_allclose(*norms, rtol=1e-14)
    assert np.abs(last.gains["k"] - start.gains["k"]).max() > 1e-4
    # A factor that is a power of two changes no bit of what the network is.
    jax.tree.map(
        np.testing.assert_array_equal, wn.apply(scaled), wn.apply(last)
    )
    moved = wn.apply(last)["k"] - params()["k"]
    assert np.abs(moved).max() > 1e-3


def test_raw_groups_in_every_form():
    raw = weight_normalization(GROUPS).init(params())
    plan = make_plan(raw_groups(GROUPS), raw)
    assert plan.paths == ("weights/k",)
    one = weight_normalization(COLUMNS).init(draw(5, 4))
    assert make_plan(raw_groups(COLUMNS), one).paths == ("weights",)
    tied = {"k": ScaleGroup(0, tie="t"), "b": ScaleGroup((), tie="t")}
    both = weight_normalization(tied).init(params())
    assert make_plan(raw_groups(tied), both).group_shapes == {"weights/b": (4,)}
    assert hash(raw_groups(GROUPS)) == hash(raw_groups(dict(GROUPS)))
    with pytest.raises(TypeError, match=r"Reparametrized.*dict"):
        make_plan(raw_groups(GROUPS), params())
    with pytest.raises(ValueError, match="'j'"):
        make_plan(raw_groups({"j": COLUMNS}), raw)


def test_other_functions_take_no_gains():
    with pytest.raises(ValueError, match="function="):
        weight_normalization(GROUPS, orthogonal)
    wn = weight_normalization(GROUPS)
    wrong = Reparametrized(params(), {"k": jnp.ones(5)})
    with pytest.raises(ValueError, match="gains"):
        wn.apply(wrong)


# -- Flax --------------------------------------------------------------------

# They add 1e-12 under the root of a sum of squares that is above 0.1, hence
# change a product of below 10 by less than half of 1e-12 / 0.1 of it.
CLOSE = {"rtol": 0, "atol": 10 * 0.5 * 1e-12 / 0.1}


def check_parity(theirs, x, kernel):
    assert jnp.sum(kernel**2, axis=0).min() > 0.1
    ours = x @ unit(kernel, COLUMNS)
    assert np.abs(ours).max() < 10
    np.testing.assert_allclose(theirs, ours, **CLOSE)
    # The epsilon is seen in doubles. Wrapping a layer changes it.
    assert np.abs(theirs - ours).max() > 1e-15
    assert np.abs(theirs - x @ kernel).max() > 0.01


def test_linen_is_unit_up_to_its_epsilon():
    x, kernel = draw(7, 5), draw(5, 4)
    inner = nn.Dense(4, param_dtype=jnp.float64)
    layer = nn.WeightNorm(inner, param_dtype=jnp.float64)
    params = layer.init(jax.random.key(0), x)["params"]
    [name] = [name for name, x in params.items() if isinstance(x, dict)]
    params[name]["kernel"] = kernel
    check_parity(layer.apply({"params": params}, x), x, kernel)


def test_nnx_is_unit_up_to_its_epsilon():
    x, kernel = draw(7, 5), draw(5, 4)
    inner = nnx.Linear(5, 4, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
    layer = nnx.WeightNorm(inner, rngs=nnx.Rngs(0))
    layer.layer_instance.kernel[...] = kernel
    check_parity(layer(x), x, kernel)
