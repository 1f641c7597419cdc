"""Networks whose batch, or weights, lie on several devices."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.sharding import PartitionSpec as Spec

from .linen import Compact, batch_norm, dense
from .plain import COLUMNS, MATRIX, classify, rms_norm
from .registry import (
    INERT,
    cross_entropy,
    fill,
    labels,
    leaky,
    net,
    normal,
    pair,
    vectors,
)


def over_devices(loss, params, specs):
    """A loss of a device's part of the batch, as the mean over all of them.

    Args:
        loss: a function of a device's own params, x and y.
        params: the whole parameters.
        specs: how each of these lies on the axis "batch" of the mesh.
    """
    axis = jax.sharding.AxisType.Auto
    count = math.gcd(4, jax.device_count())
    mesh = jax.make_mesh((count,), ("batch",), axis_types=(axis,))

    def of_a_part(*args):
        return lax.pmean(loss(*args), "batch")

    mapped = jax.shard_map(
        of_a_part,
        mesh=mesh,
        in_specs=(specs, Spec("batch"), Spec("batch")),
        out_specs=Spec(),
    )
    return mapped, params, (vectors(16), labels(16))


def synchronized(x, epsilon=1e-5):
    """BatchNorm over the batch of all devices."""
    mean = lax.pmean(x.mean(0, keepdims=True), "batch")
    variance = lax.pmean(((x - mean) ** 2).mean(0, keepdims=True), "batch")
    return (x - mean) * lax.rsqrt(variance + epsilon)


@net(
    "plain_synchronized_batch_norm",
    {"a": COLUMNS, "a_bias": INERT, "c": COLUMNS, **pair("gain", "shift")},
)
def synchronized_batch_norm():
    """By the mean square deviation, and by the mean square."""

    def loss(p, x, y):
        x = synchronized(x @ p["a"] + p["a_bias"][None])
        x = jax.nn.relu(x * p["gain"][None] + p["shift"][None]) @ p["c"]
        both = jnp.stack([x.mean(0), (x**2).mean(0)])
        mean, square = lax.pmean(both, "batch")
        x = (x - mean[None]) * lax.rsqrt(square - mean**2 + 1e-5)[None]
        return cross_entropy(leaky(x) @ p["head"], y)

    params = {
        "a": normal(0, 4, 6),
        "a_bias": jnp.zeros(6),
        "gain": jnp.ones(6),
        "shift": jnp.zeros(6),
        "c": normal(1, 6, 5),
        "head": normal(2, 5, 3),
    }
    return over_devices(loss, params, Spec())


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

    model = Compact(forward)
    key, x = jax.random.key(0), jnp.ones((4, 4))
    variables = fill(jax.eval_shape(model.init, key, x))
    params = variables.pop("params")

    def loss(p, x, y):
        logits, _ = model.apply(
            {"params": p, **variables}, x, mutable=list(variables)
        )
        return cross_entropy(logits, y)

    return over_devices(loss, params, Spec())


@net("plain_fully_sharded", {"a": COLUMNS, "c": MATRIX})
def fully_sharded():
    """Each device keeps some rows of every kernel, and gathers the others."""

    def loss(p, x, y):
        a, c, head = (
            lax.all_gather(p[name], "batch", axis=0, tiled=True)
            for name in ("a", "c", "head")
        )
        x = leaky(synchronized(x @ a))
        return cross_entropy(leaky(rms_norm(x @ c)) @ head, y)

    params = {
        "a": normal(0, 4, 8),
        "c": normal(1, 8, 4),
        "head": normal(2, 4, 3),
    }
    return over_devices(loss, params, Spec("batch"))


@net("plain_tensor_parallel", {"a": MATRIX, "c": MATRIX})
def tensor_parallel():
    """A part of the hidden units on each device; their outputs are summed."""

    def loss(p, x, y):
        x = lax.all_gather(x, "batch", axis=0, tiled=True)
        y = lax.all_gather(y, "batch", axis=0, tiled=True)
        x = lax.psum(leaky(x @ p["a"]) @ p["c"], "batch")
        return cross_entropy(leaky(rms_norm(x)) @ p["head"], y)

    params = {
        "a": normal(0, 4, 8),
        "c": normal(1, 8, 5),
        "head": normal(2, 5, 3),
    }
    specs = {"a": Spec(None, "batch"), "c": Spec("batch"), "head": Spec()}
    return over_devices(loss, params, specs)


@net("plain_mapped_batch_norm", {"a": COLUMNS, "a_bias": INERT, "c": COLUMNS})
def mapped_batch_norm():
    """One example at a time, under `jax.vmap` with a name for the batch."""

    def features(p, x):
        x = synchronized((x @ p["a"] + p["a_bias"])[None])[0]
        return leaky(synchronized((leaky(x) @ p["c"])[None])[0])

    return classify(
        jax.vmap(features, (None, 0), axis_name="batch"),
        a=normal(0, 4, 6),
        a_bias=jnp.zeros(6),
        c=normal(1, 6, 5),
    )
