"""Trajectories on eight devices, with the weights sharded along an axis."""

import functools
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.devices.network import (
    GROUPS,
    RECIPES,
    WRONG_GROUPS,
    loss,
    make_batch,
    make_params,
    run,
    step,
)

DEVICES = 8

# Kernels are (fan-in, output channels); biases have the second alone.
AXES = {"fan_in": 0, "outputs": -1}
TYPES = {"explicit": AxisType.Explicit, "auto": AxisType.Auto}


class Result(NamedTuple):
    """What there is to know of one trajectory."""

    params: Any
    types_before: list[tuple]  # of weights and states
    types_after: list[tuple]
    compilations: int  # of the update
    program: str  # the update's, as compiled


def make_mesh(axis_type):
    return jax.make_mesh((DEVICES,), ("d",), axis_types=(axis_type,))


def spec_of(x, axis):
    """Shards the first or the last axis of a leaf."""
    parts = [None] * x.ndim
    parts[axis] = "d"
    return PartitionSpec(*parts)


def types(tree):
    return [
        (x.shape, x.dtype, x.weak_type, x.sharding)
        for x in jax.tree.leaves(tree)
    ]


@functools.cache
def on_devices(recipe, dtype, axis, axis_type, wrong=False):
    """A trajectory in which weights and states are sharded.

    Args:
        recipe: a name of `RECIPES`.
        dtype: of weights and data.
        axis: a name of `AXES`.
        axis_type: a name of `TYPES`.
        wrong: whether the groups are.
    """
    mesh = make_mesh(TYPES[axis_type])
    tx = RECIPES[recipe](WRONG_GROUPS if wrong else GROUPS)
    with jax.set_mesh(mesh):
        params = jax.tree.map(
            lambda x: jax.device_put(
                x, NamedSharding(mesh, spec_of(x, AXES[axis]))
            ),
            make_params(dtype),
        )
        batch = jax.device_put(
            make_batch(dtype), NamedSharding(mesh, PartitionSpec())
        )
        state = _init(tx, params, axis_type)
        step_fn = jax.jit(step(tx))
        last = run(_gradient(axis_type), step_fn, params, state, batch)
        compiled = step_fn.lower(params, state, params).compile()
    return Result(
        last[0],
        types((params, state)),
        types(last),
        step_fn._cache_size(),
        compiled.as_text(),
    )


def _init(tx, params, axis_type):
    """The state, which explicit types shard by themselves."""
    if axis_type == "explicit":
        return jax.jit(tx.init)(params)
    mesh = jax.tree.leaves(params)[0].sharding.mesh
    shardings = optax.tree.map_params(
        tx,
        lambda _, x: x.sharding,
        jax.eval_shape(tx.init, params),
        params,
        transform_non_params=lambda _: NamedSharding(mesh, PartitionSpec()),
    )
    return jax.jit(tx.init, out_shardings=shardings)(params)


@functools.cache
def _gradient(axis_type):
    """The gradient, which every device computes from the whole weights."""
    whole = {
        "explicit": jax.reshard,
        "auto": jax.lax.with_sharding_constraint,
    }[axis_type]

    def loss_fn(params, batch):
        return loss(whole(params, PartitionSpec()), batch)

    # Without this, nothing tells the compiler how to lay the gradient out.
    def gradient(params, batch):
        return jax.grad(loss_fn)(params, batch)

    return jax.jit(gradient)
