"""One name for a parameter, whatever library holds it."""

from typing import NamedTuple

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from psi_optax import ScaleGroup, groups_from_paths, output_channels
from psi_optax.groups import make_plan
from psi_optax.groups.paths import is_within, leaves_with_paths


def paths(tree):
    return [entry.path for entry in leaves_with_paths(tree)]


def test_linen():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(nn.Conv(4, (3,))(x))

    params = Net().init(jax.random.key(0), jnp.ones((1, 5, 3)))["params"]
    assert paths(params) == [
        "Conv_0/bias",
        "Conv_0/kernel",
        "Dense_0/bias",
        "Dense_0/kernel",
    ]


class NnxNet(nnx.Module):
    def __init__(self):
        layer = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
        self.blocks = nnx.List([layer, nnx.Linear(4, 2, rngs=nnx.Rngs(1))])


def test_nnx_has_the_same_names_at_init_and_at_update():
    seen = {}

    def init_fn(params):
        seen["init"] = paths(params)
        return optax.EmptyState()

    def update_fn(updates, state, params):
        seen["params"] = paths(params)
        seen["updates"] = paths(updates)
        return updates, state

    model = NnxNet()
    spy = optax.GradientTransformation(init_fn, update_fn)
    optimizer = nnx.Optimizer(model, spy, wrt=nnx.Param)
    optimizer.update(model, nnx.state(model, nnx.Param))
    assert seen["init"] == seen["params"] == seen["updates"]
    assert seen["init"][1] == "blocks/0/kernel"


def test_a_tree_mapped_from_nnx_state_serves_as_groups():
    state = nnx.state(NnxNet(), nnx.Param)
    groups = jax.tree.map(
        lambda w: ScaleGroup(0) if w.ndim > 1 else None, state
    )
    plan = make_plan(groups, state)
    assert plan == make_plan(groups, nnx.to_pure_dict(state))
    assert [leaf.path for leaf in plan.leaves] == [
        "blocks/0/kernel",
        "blocks/1/kernel",
    ]


def test_equinox():
    mlp = eqx.nn.MLP(3, 2, 4, depth=1, key=jax.random.key(0))
    found = leaves_with_paths(eqx.filter(mlp, eqx.is_inexact_array))
    arrays = [entry.path for entry in found if not entry.is_placeholder]
    assert arrays == [
        "layers/0/weight",
        "layers/0/bias",
        "layers/1/weight",
        "layers/1/bias",
    ]
    assert any(entry.is_placeholder for entry in found)  # The activations.


def test_haiku():
    def net(x):
        return hk.nets.MLP([4, 2], name="mlp")(x)

    params = hk.transform(net).init(jax.random.PRNGKey(0), jnp.ones((1, 3)))
    assert paths(params) == [
        "mlp/~/linear_0/b",
        "mlp/~/linear_0/w",
        "mlp/~/linear_1/b",
        "mlp/~/linear_1/w",
    ]
    rule = groups_from_paths({r".*/w": ScaleGroup(0)})
    assert len(make_plan(rule, params).leaves) == 2


def test_a_parameter_may_be_called_value():
    assert paths({"value": 1.0, "head": {"value": 1.0}}) == [
        "head/value",
        "value",
    ]


class Attention(NamedTuple):
    query: float
    key: float
    value: float


def test_a_field_called_value_beside_others_keeps_its_name():
    assert paths({"attn": Attention(1.0, 2.0, 3.0)}) == [
        "attn/query",
        "attn/key",
        "attn/value",
    ]


def test_a_tree_of_a_module_that_can_be_called_serves_as_groups():
    mlp = eqx.nn.MLP(3, 2, 4, depth=1, key=jax.random.key(0))
    params = eqx.filter(mlp, eqx.is_inexact_array)
    groups = output_channels(params, where="layers/0/weight", axis=0)
    assert callable(groups)
    [leaf] = make_plan(groups, params).leaves
    assert (leaf.path, leaf.group) == ("layers/0/weight", ScaleGroup(1))


def test_a_single_array_is_at_the_root():
    assert paths(jnp.ones(2)) == [""]
    assert len(make_plan(ScaleGroup(0), jnp.ones(2)).leaves) == 1


def test_two_leaves_of_one_name():
    with pytest.raises(ValueError, match="'a/b'.*Rename"):
        leaves_with_paths({"a": {"b": 1.0}, "a/b": 2.0})


def test_a_prefix_ends_where_a_key_ends():
    assert is_within("Conv_1/kernel", "Conv_1")
    assert is_within("Conv_1", "")
    assert not is_within("Conv_10/kernel", "Conv_1")
