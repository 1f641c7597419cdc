"""Networks whose batch, or weights, lie on several devices."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.sharding import PartitionSpec as Spec

from .linen import batch_norm, classify, dense
from .plain import COLUMNS, MATRIX, classifier, rms_norm
from .registry import (
    INERT,
    cross_entropy,
    draw,
    labels,
    leaky,
    net,
    pair,
    vectors,
)


def over_devices(loss, specs=None, **params):
    """Return a loss of a device's part of the batch as the mean over devices.

    `specs` says how the parameters lie on the axis "batch" of the mesh.
    """
    axis = jax.sharding.AxisType.Auto
    count = math.gcd(4, jax.device_count())
    mesh = jax.make_mesh((count,), ("batch",), axis_types=(axis,))

    def of_a_part(*args):
        return lax.pmean(loss(*args), "batch")

    in_specs = specs or Spec(), Spec("batch"), Spec("batch")
    mapped = jax.shard_map(
        of_a_part, mesh=mesh, in_specs=in_specs, out_specs=Spec()
    )
    return mapped, draw(**params), (vectors(16), labels(16))


parallel = partial(net, build=over_devices)


def synchronized(x, epsilon=1e-5):
    """BatchNorm over the batch of all devices."""
    mean = lax.pmean(x.mean(0, keepdims=True), "batch")
    variance = lax.pmean(((x - mean) ** 2).mean(0, keepdims=True), "batch")
    return (x - mean) * lax.rsqrt(variance + epsilon)


@parallel(
    "plain_synchronized_batch_norm",
    {"a": COLUMNS, "a_bias": INERT, "c": COLUMNS, **pair("gain", "shift")},
    a=(4, 6),
    a_bias=np.zeros(6),
    gain=np.ones(6),
    shift=np.zeros(6),
    c=(6, 5),
    head=(5, 3),
)
def synchronized_batch_norm(p, x, y):
    """By the mean square deviation, and by the mean square."""
    x = synchronized(x @ p["a"] + p["a_bias"][None])
    x = jax.nn.relu(x * p["gain"][None] + p["shift"][None]) @ p["c"]
    both = jnp.stack([x.mean(0), (x**2).mean(0)])
    mean, square = lax.pmean(both, "batch")
    x = (x - mean[None]) * lax.rsqrt(square - mean**2 + 1e-5)[None]
    return cross_entropy(leaky(x) @ p["head"], y)


@net(
    "linen_synchronized_batch_norm",
    {
        "Dense_0/kernel": COLUMNS,
        "Dense_0/bias": INERT,
        "Dense_1/kernel": COLUMNS,
        **pair("BatchNorm_0/scale", "BatchNorm_0/bias"),
    },
)
def linen_synchronized_batch_norm():
    def forward(x):
        x = nn.relu(batch_norm(axis_name="batch")(nn.Dense(6)(x)))
        x = nn.relu(batch_norm(False, axis_name="batch")(dense(5)(x)))
        return nn.Dense(3, name="head")(x)

    loss, params, (state, *_) = classify(forward, vectors)
    return over_devices(lambda p, x, y: loss(p, state, x, y), **params)


@parallel(
    "plain_fully_sharded",
    {"a": COLUMNS, "c": MATRIX},
    specs=Spec("batch"),
    a=(4, 8),
    c=(8, 4),
    head=(4, 3),
)
def fully_sharded(p, x, y):
    """Each device keeps some rows of every kernel, and gathers the others."""
    a, c, head = (
        lax.all_gather(p[name], "batch", axis=0, tiled=True)
        for name in ("a", "c", "head")
    )
    x = leaky(synchronized(x @ a))
    return cross_entropy(leaky(rms_norm(x @ c)) @ head, y)


@parallel(
    "plain_tensor_parallel",
    {"a": MATRIX, "c": MATRIX},
    specs={"a": Spec(None, "batch"), "c": Spec("batch"), "head": Spec()},
    a=(4, 8),
    c=(8, 5),
    head=(5, 3),
)
def tensor_parallel(p, x, y):
    """A part of the hidden units on each device; their outputs are summed."""
    x = lax.all_gather(x, "batch", axis=0, tiled=True)
    y = lax.all_gather(y, "batch", axis=0, tiled=True)
    x = lax.psum(leaky(x @ p["a"]) @ p["c"], "batch")
    return cross_entropy(leaky(rms_norm(x)) @ p["head"], y)


@classifier(
    "plain_mapped_batch_norm",
    {"a": COLUMNS, "a_bias": INERT, "c": COLUMNS},
    a=(4, 6),
    a_bias=np.zeros(6),
    c=(6, 5),
)
@partial(jax.vmap, in_axes=(None, 0), axis_name="batch")
def mapped_batch_norm(p, x):
    """One example at a time, under `jax.vmap` with a name for the batch."""
    x = synchronized((x @ p["a"] + p["a_bias"])[None])[0]
    return leaky(synchronized((leaky(x) @ p["c"])[None])[0])
