"""Inside `jax.shard_map`, where a group has to say over which axis it lies.

All kernels are sharded along fan-in and all biases are replicated: a tied
bias, which every device has whole, must not be counted eight times. The third
layer has blocks along its other axis.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import psi_optax
from tests.compilation import quick_jit
from tests.devices.meshes import make_mesh, map_state, spec_of
from tests.devices.network import (
    GROUPS,
    RECIPES,
    distance,
    loss,
    make_batch,
    make_params,
    on_one_device,
    run,
    step,
    tolerance,
)

pytestmark = pytest.mark.usefixtures("x64", "optax_promotion")


def name_axis(path, axis_name):
    return dataclasses.replace(GROUPS[path], axis_name=axis_name)


KERNELS = ["batch/kernel", "layer/kernel", "group/kernel"]
SHARDED = {**GROUPS, **{path: name_axis(path, "d") for path in KERNELS}}


def param_specs(params):
    return jax.tree.map(
        lambda x: spec_of(x, 0) if x.ndim == 2 else PartitionSpec(), params
    )


def state_specs(tx, params):
    state = jax.eval_shape(tx.init, params)
    return map_state(tx, state, param_specs(params), PartitionSpec())


def place(tree, specs):
    mesh = make_mesh("auto")
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    return jax.device_put(tree, shardings)


def shard_map(function, in_specs, out_specs):
    mesh = make_mesh("auto")
    return quick_jit(
        jax.shard_map(
            function, mesh=mesh, in_specs=in_specs, out_specs=out_specs
        )
    )


def fan_in_matmul(x, kernel):
    """The product with a kernel of which this device has some rows."""
    rows = kernel.shape[0]
    start = jax.lax.axis_index("d") * rows
    x = jax.lax.dynamic_slice_in_dim(x, start, rows, axis=1)
    return jax.lax.psum(x @ kernel, "d")


@functools.cache
def gradient_on_shards():
    specs = param_specs(make_params("float64"))
    gradient = jax.grad(lambda params, x: loss(params, x, fan_in_matmul))
    return shard_map(gradient, (specs, PartitionSpec()), specs)


class OnShards:
    """A recipe whose `init` and step run on shards of the weights."""

    def __init__(self, recipe, groups):
        params = make_params("float64")
        tx = RECIPES[recipe](groups)
        specs = param_specs(params)
        states = state_specs(tx, params)
        self.params = place(params, specs)
        self.state_from_outside = place(tx.init(params), states)
        self.init = shard_map(tx.init, (specs,), states)
        self.step = shard_map(step(tx), (specs, states, specs), (specs, states))

    def run(self, state):
        batch = make_batch("float64")
        return run(gradient_on_shards(), self.step, self.params, state, batch)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_trajectory_is_that_of_one_device(recipe):
    on_shards = OnShards(recipe, SHARDED)
    expected = on_one_device(recipe, "float64")
    inside = on_shards.init(on_shards.params)
    for state in inside, on_shards.state_from_outside:
        last, _ = on_shards.run(state)
        assert distance(last, expected) < tolerance("float64")


@pytest.mark.parametrize("path", ["batch/kernel", "group/kernel"])
def test_a_forgotten_name_goes_elsewhere(path):
    on_shards = OnShards("psi", {**SHARDED, path: GROUPS[path]})
    last, _ = on_shards.run(on_shards.state_from_outside)
    expected = on_one_device("psi", "float64")
    assert distance(last, expected) > 1e6 * tolerance("float64")


@pytest.mark.parametrize("path", ["batch/kernel", "group/kernel"])
def test_a_forgotten_name_is_caught_where_the_state_has_sums(path):
    on_shards = OnShards("psi_sgd", {**SHARDED, path: GROUPS[path]})
    with pytest.raises(ValueError, match="radial .*replicated"):
        on_shards.run(on_shards.state_from_outside)


def test_a_forgotten_name_is_caught_by_jax_where_it_looks():
    on_shards = OnShards("psi_sgd", GROUPS)
    with pytest.raises(ValueError, match="radius .*replicated"):
        on_shards.init(on_shards.params)


def test_a_name_for_a_replicated_bias_goes_elsewhere():
    path = "layer/bias"
    groups = {**SHARDED, path: name_axis(path, "d")}
    on_shards = OnShards("psi_sgd", groups)
    last, _ = on_shards.run(on_shards.state_from_outside)
    expected = on_one_device("psi_sgd", "float64")
    assert distance(last, expected) > 1e6 * tolerance("float64")


@pytest.mark.parametrize("path", KERNELS)
def test_a_misspelled_name_is_an_error_that_names_the_parameter(path):
    groups = {**SHARDED, path: name_axis(path, "model")}
    on_shards = OnShards("psi_sgd", groups)
    with pytest.raises(ValueError, match=f"'{path}' .*'model'.*'d'"):
        on_shards.init(on_shards.params)
    state = on_shards.state_from_outside
    with pytest.raises(ValueError, match=f"'{path}' .*'model'.*'d'"):
        on_shards.step(on_shards.params, state, on_shards.params)


def test_two_mesh_axes():
    types = (jax.sharding.AxisType.Explicit,) * 2
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=types)
    w = np.random.RandomState(0).normal(size=(16, 3))
    group = psi_optax.ScaleGroup(axes=0, axis_name=("a", "b"))
    norms = jax.shard_map(
        lambda w: psi_optax.group_norms(w, group),
        mesh=mesh,
        in_specs=PartitionSpec(("a", "b")),
        out_specs=PartitionSpec(),
    )
    sharding = jax.NamedSharding(mesh, PartitionSpec(("a", "b")))
    found = norms(jax.device_put(jnp.asarray(w), sharding))
    # 16 squares and a root: a few roundings of 1e-16.
    np.testing.assert_allclose(found, np.linalg.norm(w, axis=0), rtol=1e-15)


def test_outside_names_have_no_effect():
    params = make_params("float64")
    expected = psi_optax.group_norms(params, GROUPS)
    for name in ["d", "model", ("d", "model")]:
        renamed = {path: name_axis(path, name) for path in KERNELS}
        found = psi_optax.group_norms(params, {**GROUPS, **renamed})
        jax.tree.map(np.testing.assert_array_equal, found, expected)
