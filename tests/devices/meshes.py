"""Trajectories on eight devices, with the weights sharded along one axis."""

import functools
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.compilation import quick_jit
from tests.devices.network import (
    GROUPS,
    RECIPES,
    loss,
    make_batch,
    make_params,
    run,
    step,
)

DEVICES = 8

# Kernels are (fan-in, output channels); biases have the latter alone.
AXES = {"fan_in": 0, "outputs": -1}
AXIS_TYPES = {"explicit": AxisType.Explicit, "auto": AxisType.Auto}


class Result(NamedTuple):
    """What there is to know of one trajectory."""

    params: Any
    types_before: list[tuple]  # of the leaves of weights and state
    types_after: list[tuple]
    compilations: int  # of the update


def make_mesh(axis_type="explicit"):
    types = (AXIS_TYPES[axis_type],)
    return jax.make_mesh((DEVICES,), ("d",), axis_types=types)


def spec_of(x, axis, axis_type="explicit"):
    """Shards one axis of a leaf."""
    parts = [None] * x.ndim
    parts[axis] = "d"
    # Types name all axes; the compiler leaves out None at the end.
    while axis_type == "auto" and parts[-1] is None:
        parts.pop()
    return PartitionSpec(*parts)


def types(tree):
    return [
        (x.shape, x.dtype, x.weak_type, x.sharding)
        for x in jax.tree.leaves(tree)
    ]


def on_devices(recipe, dtype, axis, axis_type):
    """A trajectory with weights and state sharded.

    Args:
        recipe: a name of `RECIPES`.
        dtype: of weights and data.
        axis: a name of `AXES`.
        axis_type: a name of `AXIS_TYPES`.
    """
    mesh = make_mesh(axis_type)
    with jax.set_mesh(mesh):
        tx, params, state = sharded(recipe, dtype, axis, axis_type)
        batch = jax.device_put(make_batch(dtype), replicated(mesh))
        step_fn = quick_jit(step(tx))
        last = run(_gradient(axis_type), step_fn, params, state, batch)
    return Result(
        params=last[0],
        types_before=types((params, state)),
        types_after=types(last),
        compilations=step_fn._cache_size(),
    )


def sharded(recipe, dtype, axis, axis_type):
    """A recipe with weights and state, each in shards; under a mesh."""
    mesh = make_mesh(axis_type)
    tx = RECIPES[recipe](GROUPS)
    params = jax.tree.map(
        lambda x: jax.device_put(
            x, NamedSharding(mesh, spec_of(x, AXES[axis], axis_type))
        ),
        make_params(dtype),
    )
    return tx, params, _init(tx, params, axis_type)


def replicated(mesh):
    return NamedSharding(mesh, PartitionSpec())


def _init(tx, params, axis_type):
    """The state; automatic axes have to be told how to shard it."""
    if axis_type == "explicit":
        return quick_jit(tx.init)(params)
    shardings = map_state(
        tx,
        jax.eval_shape(tx.init, params),
        jax.tree.map(lambda x: x.sharding, params),
        replicated(make_mesh(axis_type)),
    )
    return quick_jit(tx.init, out_shardings=shardings)(params)


def map_state(tx, state, like_params, other):
    """Each leaf of a state that is like params as these, all others `other`.

    A mask hides leaves of a state that are there in params.
    """

    def is_masked(x):
        return isinstance(x, optax.MaskedNode)

    return optax.tree.map_params(
        tx,
        lambda x, spec: x if is_masked(x) else spec,
        state,
        like_params,
        transform_non_params=lambda _: other,
        is_leaf=is_masked,
    )


@functools.cache
def _gradient(axis_type):
    """The gradient, for which every device gathers the weights."""
    gather = {
        "explicit": jax.sharding.reshard,
        "auto": jax.lax.with_sharding_constraint,
    }[axis_type]
    return quick_jit(
        jax.grad(lambda params, x: loss(gather(params, PartitionSpec()), x))
    )
