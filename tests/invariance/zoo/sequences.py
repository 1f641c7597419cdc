"""Layers over time with another rule than softmax attention's."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from .plain import HEADS, MATRIX, rms_norm, standardize, unit, with_head
from .registry import PARTLY, net, normal, tied


def heads(x, kernel):
    return jnp.einsum("bti,ihd->bthd", x, kernel)


def of_sequences(features, **params):
    """Return the loss of a head on the mean over time."""

    def pooled(p, x):
        return jax.nn.gelu(features(p, x)).mean(1)

    return with_head(pooled, (150, 6, 4, 5), **params)


sequences = partial(net, build=of_sequences)


def projections(*names):
    return {name: normal(k, 5, 2, 3) for k, name in enumerate(names)}


@sequences(
    "plain_retention",
    {"query": HEADS, "key": HEADS, "value": HEADS},
    **projections("query", "key", "value"),
    gate=normal(4, 5, 6),
    out=normal(5, 6, 5),
)
def retention(p, x):
    """Linear attention that decays, normalized in each head."""
    q, k, v = (heads(x, p[n]) for n in ("query", "key", "value"))
    time = jnp.arange(x.shape[1])
    ago = (time[:, None] - time[None]).astype(x.dtype)
    kept = jnp.where(ago >= 0, 0.8**ago, 0.0)
    weights = jnp.einsum("bqhd,bkhd->bhqk", q, k) * kept[None, None]
    y = standardize(jnp.einsum("bhqk,bkhd->bqhd", weights, v), -1, 1e-6)
    gate = jax.nn.silu(x @ p["gate"])
    return (gate * y.reshape(gate.shape)) @ p["out"]


@sequences(
    "plain_delta_rule",
    {"query": HEADS, "key": HEADS, "value": HEADS},
    **projections("query", "key", "value"),
    rate=normal(4, 5, 2),
    out=normal(5, 6, 5),
)
def delta_rule(p, x):
    """A matrix for each head, corrected step by step; its output is normed."""

    def turn(state, now):
        q, k, v, rate = now
        wrong = v - jnp.einsum("bhkv,bhk->bhv", state, k)
        state = state + jnp.einsum("bhk,bhv->bhkv", k, rate[..., None] * wrong)
        return state, jnp.einsum("bhkv,bhk->bhv", state, q)

    q, k = (unit(heads(x, p[n]), -1) for n in ("query", "key"))
    v, rate = heads(x, p["value"]), jax.nn.sigmoid(x @ p["rate"])
    over_time = tuple(z.swapaxes(0, 1) for z in (q, k, v, rate))
    state = jnp.zeros((len(x), 2, 3, 3), x.dtype)
    y = lax.scan(turn, state, over_time)[1].swapaxes(0, 1)
    y = rms_norm(y, 1e-12)
    return y.reshape(*x.shape[:2], -1) @ p["out"]


@sequences(
    "plain_differential_attention",
    {"value": HEADS},
    **projections("query1", "key1", "query2", "key2", "value"),
    left=0.5 * normal(6, 3),
    right=0.5 * normal(7, 3),
    out=normal(8, 6, 5),
)
def differential_attention(p, x):
    """The difference of two softmaxes, normalized in each head."""
    parts = [
        jax.nn.softmax(
            jnp.einsum(
                "bqhd,bkhd->bhqk",
                heads(x, p[f"query{k}"]),
                heads(x, p[f"key{k}"]),
            )
        )
        for k in (1, 2)
    ]
    share = jnp.exp((p["left"] * p["right"]).sum()) - 0.5
    weights = parts[0] - share * parts[1]
    y = jnp.einsum("bhqk,bkhd->bqhd", weights, heads(x, p["value"]))
    return rms_norm(y).reshape(*x.shape[:2], -1) @ p["out"]


@sequences(
    "plain_latent_attention",
    {"query_down": MATRIX, "key_down": PARTLY},
    query_down=(5, 3),
    query=(3, 2, 5),
    key_down=(5, 5),
    key=(3, 2, 3),
    value=(3, 2, 5),
    out=(10, 5),
)
def latent_attention(p, x):
    """Keys and values from a few numbers that are normalized.

    The kernel that makes these makes a part of the keys too, as it is.
    """
    q = heads(rms_norm(x @ p["query_down"]), p["query"])
    latent, rest = jnp.split(x @ p["key_down"], [3], -1)
    latent = rms_norm(latent)
    rest = jnp.broadcast_to(rest[:, :, None], (*x.shape[:2], 2, 2))
    k = jnp.concatenate([heads(latent, p["key"]), rest], -1)
    v = heads(latent, p["value"])
    y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    return y.reshape(*x.shape[:2], -1) @ p["out"]


def modulated(last):
    return tied(patches=(0, 1), positions=(0, 1), **last)


@sequences(
    "plain_diffusion_transformer",
    modulated({"down": (0, 1)}),
    condition=(5, 4),
    modulation=(4, 15),
    patches=(5, 5),
    positions=(4, 5),
    up=(5, 6),
    down=(6, 5),
)
def diffusion_transformer(p, x):
    """A condition makes shift, scale and gate of a branch: adaLN-Zero."""
    condition = jax.nn.silu(x.mean(1) @ p["condition"])
    shift, scale, gate = jnp.split(
        (condition @ p["modulation"])[:, None], 3, -1
    )
    x = x @ p["patches"] + p["positions"][None]
    y = standardize(x, -1, 1e-6) * (1.0 + scale) + shift
    x = x + gate * (jax.nn.gelu(y @ p["up"]) @ p["down"])
    return standardize(x, -1, 1e-6)


@sequences(
    "plain_dispatched_experts",
    tied(embed=(0, 1), down=(0, 1, 2)),
    embed=(5, 5),
    router=(5, 3),
    up=(3, 5, 6),
    down=(3, 6, 5),
)
def dispatched_experts(p, x):
    """The two best experts by products with masks, up to a capacity."""
    stream = x @ p["embed"]
    x = rms_norm(stream).reshape(-1, 5)
    gates = jax.nn.softmax(x @ p["router"])
    best, chosen = lax.top_k(gates, 2)
    best = best / best.sum(-1, keepdims=True)
    one = jax.nn.one_hot(chosen, 3, dtype=x.dtype)
    place = jnp.cumsum(one.sum(1), 0) - 1.0
    mask = jax.nn.one_hot(place.astype(jnp.int32), 18, dtype=x.dtype)
    mask = mask * one.sum(1)[..., None]
    combine = jnp.einsum("tk,tke->te", best, one)[..., None] * mask
    given = jnp.einsum("tec,ti->eci", mask, x)
    hidden = jax.nn.gelu(jnp.einsum("eci,eio->eco", given, p["up"]))
    y = jnp.einsum("eco,eoi->eci", hidden, p["down"])
    y = jnp.einsum("tec,eci->ti", combine, y)
    return rms_norm(stream + y.reshape(stream.shape))
