"""Flax, Equinox and Haiku: one set of groups, the numbers of plain trees."""

from collections.abc import Callable

import equinox as eqx
import flax
import haiku as hk
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

from psi_optax import ScaleGroup, group_norms, psi_sgd
from psi_optax.wrappers import average_weights, get_average
from tests.conformance.checks import assert_equal
from tests.registry import GROUPS, draw
from tests.theory.training import walk

# What containers could break: every kind of state, tree by tree. The recipes
# are made of these.
each_entry = pytest.mark.parametrize(
    "name",
    [
        *("scale_by_group_norm", "project_to_tangent", "retract"),
        *("rescale_weights", "clip_by_group_norm", "add_decayed_weights"),
        *("add_orthogonality", "transported_trace_parallel"),
        *("relative_ascent", "mix_with_neighbors", "perturb_weights"),
        *(
            "local_entropy",
            "scale_by_group_rms",
            "scale_by_group_adam",
            "project_by_cosine",
        ),
        *("psi", "psi_ordinary", "psi_additive", "psi_adam", "psi_sgdm"),
        *("monitor_groups", "hyperball", "muonh"),
    ],
)
GRADIENTS = (1, 2)


def on_plain_trees(tx):
    """The weights after two steps: the second has the state of the first."""
    return walk(tx, draw(0), map(draw, GRADIENTS))[0][-1]


class NnxDense(nnx.Module):
    def __init__(self, kernel, bias):
        self.kernel, self.bias = nnx.Param(kernel), nnx.Param(bias)


class NnxNet(nnx.Module):
    def __init__(self, hidden, blocks, vector, head):
        self.hidden, self.head = NnxDense(**hidden), NnxDense(**head)
        self.blocks, self.vector = nnx.Param(blocks), nnx.Param(vector)
        self.statistics = nnx.BatchStat(jnp.zeros(4))


@each_entry
def test_nnx(tx):
    model = NnxNet(**draw(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    for seed in GRADIENTS:
        gradient = nnx.state(NnxNet(**draw(seed)), nnx.Param)
        optimizer.update(model, gradient)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    assert_equal(params, on_plain_trees(tx))


@each_entry
@pytest.mark.parametrize("container", [dict, flax.core.freeze])
def test_linen(tx, container):
    state = TrainState.create(apply_fn=None, params=container(draw(0)), tx=tx)
    for seed in GRADIENTS:
        state = state.apply_gradients(grads=container(draw(seed)))
    assert_equal(flax.core.unfreeze(state.params), on_plain_trees(tx))


class EqxDense(eqx.Module):
    kernel: jax.Array
    bias: jax.Array
    activation: Callable = jnp.tanh


class EqxNet(eqx.Module):
    hidden: EqxDense
    blocks: jax.Array
    vector: jax.Array
    head: EqxDense

    def __init__(self, hidden, blocks, vector, head):
        self.hidden, self.head = EqxDense(**hidden), EqxDense(**head)
        self.blocks, self.vector = blocks, vector


@each_entry
def test_equinox(tx):
    model = EqxNet(**draw(0))
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))
    for seed in GRADIENTS:
        gradient = eqx.filter(EqxNet(**draw(seed)), eqx.is_inexact_array)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, state = tx.update(gradient, state, params)
        model = eqx.apply_updates(model, updates)
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    expected = jax.tree.leaves(EqxNet(**on_plain_trees(tx)))
    assert_equal(leaves, [x for x in expected if eqx.is_inexact_array(x)])
    assert model.hidden.activation is jnp.tanh


def test_equinox_compiles_once_and_averages():
    tx = optax.chain(psi_sgd(0.1, GROUPS), average_weights(0.5))
    model, traces = EqxNet(**draw(0)), []

    @eqx.filter_jit
    def step(model, state, gradient):
        traces.append(None)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, state = tx.update(gradient, state, params)
        return eqx.apply_updates(model, updates), state

    state = tx.init(eqx.filter(model, eqx.is_inexact_array))
    for seed in GRADIENTS:
        gradient = eqx.filter(EqxNet(**draw(seed)), eqx.is_inexact_array)
        model, state = step(model, state, gradient)
    assert len(traces) == 1
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    average = get_average(state, params, GROUPS)
    assert eqx.combine(average, rest).hidden.activation is jnp.tanh
    norms = [jnp.linalg.norm(x.vector) for x in (average, params)]
    # A radius is kept to 2 ulp.
    assert jnp.allclose(*norms, rtol=4 * 1.2e-7, atol=0)
    assert jnp.abs(average.vector - params.vector).max() > 1e-2


def test_nnx_compiles_once():
    traces = []

    @nnx.jit
    def step(model, optimizer, gradient):
        traces.append(None)
        optimizer.update(model, gradient)

    groups = {
        "hidden/kernel": ScaleGroup(axes=0),
        "blocks": ScaleGroup(axes=(0, 1)),
        **dict.fromkeys(["hidden/bias", "vector", "head"]),
    }
    model = NnxNet(**draw(0))
    norms = group_norms(nnx.state(model, nnx.Param), groups)
    tx = psi_sgd(0.1, groups, momentum=0.9)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    for seed in GRADIENTS:
        gradient = nnx.state(NnxNet(**draw(seed)), nnx.Param)
        step(model, optimizer, gradient)
    assert len(traces) == 1
    after = group_norms(nnx.state(model, nnx.Param), groups)
    for x, y in zip(
        jax.tree.leaves(after), jax.tree.leaves(norms), strict=True
    ):
        # A radius is kept to 2 ulp.
        assert jnp.allclose(x, y, rtol=2 * 1.2e-7, atol=0)


def test_haiku():
    model = hk.without_apply_rng(
        hk.transform(lambda x: hk.nets.MLP([4, 2], name="net")(x))
    )
    params = model.init(jax.random.key(0), jnp.ones((1, 3)))
    group = ScaleGroup(axes=0)
    groups = {"net/~/linear_0/w": group, "net/~/linear_0/b": None}
    groups["net/~/linear_1"] = None
    tx = psi_sgd(0.1, groups)
    gradient = jax.tree.map(jnp.ones_like, params)
    updates, _ = tx.update(gradient, tx.init(params), params)
    alone = psi_sgd(0.1, group)
    w = params["net/~/linear_0"]["w"]
    expected, _ = alone.update(jnp.ones_like(w), alone.init(w), w)
    assert_equal(updates["net/~/linear_0"]["w"], expected)
    assert_equal(updates["net/~/linear_1"]["w"], jnp.full((4, 2), -0.1))
