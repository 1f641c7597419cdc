"""Networks for sequences of tokens."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from psi_optax import ScaleGroup

from .plain import HEADS, MATRIX, classifier, rms_norm, unit
from .registry import (
    classified,
    cross_entropy,
    given,
    net,
    normal,
    sentences,
    tied,
    vectors,
    with_params,
)

causal = functools.partial(jax.nn.dot_product_attention, is_causal=True)

ROWS, COLUMNS = ScaleGroup(1), ScaleGroup(0)


def next_tokens(hidden, **params):
    """Cross entropy of the token that follows, by a head `unembed`."""

    def loss(p, x, y):
        return cross_entropy(hidden(p, x) @ p["unembed"], y)

    return with_params(loss, sentences, **params)


language_model = partial(net, build=next_tokens)


def rotate(x):
    """RoPE: two halves of each head are turned by angles, by position."""
    time, half = x.shape[1], x.shape[-1] // 2
    rates = 100.0 ** (-jnp.arange(half, dtype=x.dtype) / half)
    angles = jnp.arange(time, dtype=x.dtype)[:, None] * rates[None]
    cos, sin = (f(angles)[None, :, None] for f in (jnp.cos, jnp.sin))
    a, b = jnp.split(x, 2, -1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def heads(x, kernel):
    return jnp.einsum("bti,ihd->bthd", x, kernel)


def gqa(down, out):
    """Return the stream's writers: of a branch, either of two kernels."""
    axes = {"embed": (0, 1), down: (0, 1), out: (0, 1, 2)}
    return {"query": HEADS, "key": HEADS, **tied(**axes)}


@language_model(
    "plain_grouped_query_attention",
    gqa("down", "out"),
    (gqa("up", "out"), gqa("down", "value"), gqa("up", "value")),
    embed=(7, 5),
    query=(5, 4, 4),
    query_gain=np.ones((1, 1, 1, 4)),
    key=(5, 2, 4),
    key_gain=np.ones((1, 1, 1, 4)),
    value=(5, 2, 4),
    out=(4, 4, 5),
    gate=(5, 6),
    up=(5, 6),
    down=(6, 5),
    unembed=0.5 * normal(8, 5, 7),
)
def grouped_query_attention(p, x):
    """QK-norm with gains, then RoPE; two queries share a key and a value."""
    x = p["embed"][x]
    y = rms_norm(x)
    q = rms_norm(heads(y, p["query"])) * p["query_gain"]
    k = rms_norm(heads(y, p["key"])) * p["key_gain"]
    y = causal(rotate(q), rotate(k), heads(y, p["value"]))
    x = x + jnp.einsum("bthd,hdo->bto", y, p["out"])
    y = rms_norm(x)
    x = x + (jax.nn.silu(y @ p["gate"]) * (y @ p["up"])) @ p["down"]
    return rms_norm(x)


@given(
    "plain_ngpt",
    {
        **dict.fromkeys(("query", "key", "value", "up", "gate"), COLUMNS),
        "embed": ROWS,
        "down": ROWS,
        "unembed": COLUMNS,
        "out": ScaleGroup(2),
        "up_scale": ScaleGroup((0, 1, 2)),
    },
    args=sentences,
    embed=(7, 5),
    query=(5, 2, 4),
    key=(5, 2, 4),
    value=(5, 2, 4),
    attention_scale=np.ones((1, 1, 2, 4)),
    attention_rate=np.full((1, 1, 5), 0.5),
    out=(2, 4, 5),
    up=(5, 6),
    gate=(5, 6),
    up_scale=np.ones((1, 1, 6)),
    gate_scale=np.ones((1, 1, 6)),
    down=(6, 5),
    mlp_rate=np.full((1, 1, 5), 0.5),
    unembed=(5, 7),
    logit_scale=np.ones((1, 1, 7)),
)
def ngpt(p, x, y):
    """All vectors of the width of the model have norm one, weights too.

    What is multiplied by `up_scale` goes through a linear layer to a norm.
    """
    x = unit(p["embed"], 1)[x]
    q, k, v = (heads(x, unit(p[n], 0)) for n in ("query", "key", "value"))
    q, k = (unit(z, -1) * p["attention_scale"] for z in (q, k))
    z = causal(rotate(q) * 2.0, rotate(k), v)
    z = jnp.einsum("bthd,hdo->bto", z, unit(p["out"], 2))
    x = unit(x + p["attention_rate"] * (unit(z, -1) - x), -1)
    up = (x @ unit(p["up"], 0)) * p["up_scale"]
    gate = (x @ unit(p["gate"], 0)) * p["gate_scale"] * 5.0**0.5
    z = (up * jax.nn.silu(gate)) @ unit(p["down"], 1)
    x = unit(x + p["mlp_rate"] * (unit(z, -1) - x), -1)
    return cross_entropy(x @ unit(p["unembed"], 0) * p["logit_scale"], y)


@classifier(
    "plain_ragged_experts",
    {"up": ScaleGroup((1, 2)), "down": ScaleGroup((1, 2))},
    inputs=partial(vectors, 24),
    router=(4, 3),
    up=(3, 4, 6),
    down=(3, 6, 5),
)
def ragged_experts(p, x):
    """Examples are sorted by expert, multiplied, normalized, and unsorted."""
    gates = jax.nn.softmax(x @ p["router"])
    chosen = gates.argmax(-1)
    order = jnp.argsort(chosen)
    sizes = jnp.bincount(chosen, length=3).astype(jnp.int32)
    y = lax.ragged_dot(x[order], p["up"], sizes)
    y = rms_norm(lax.ragged_dot(jax.nn.relu(y), p["down"], sizes))
    y = y[jnp.argsort(order)]
    return y * jnp.take_along_axis(gates, chosen[:, None], -1)


@language_model(
    "plain_mamba",
    tied(embed=(0, 1), out=(0, 1)),
    embed=(7, 5),
    inner=(5, 8),
    conv=(3, 4),
    conv_bias=(4,),
    selection=(4, 8),
    step=(2, 4),
    step_bias=(4,),
    decay_log=0.3 * normal(7, 4, 3),
    skip=normal(8, 4),
    out=normal(9, 4, 5),
    unembed=0.5 * normal(10, 5, 7),
)
def mamba(p, x):
    """A state-space model whose step and matrices depend on the input."""

    def mixer(p, x):
        inner, gate = jnp.split(x @ p["inner"], 2, -1)
        padded = jnp.pad(inner, ((0, 0), (2, 0), (0, 0)))
        inner = sum(
            padded[:, k : k + inner.shape[1]] * p["conv"][k][None, None]
            for k in range(3)
        )
        inner = jax.nn.silu(inner + p["conv_bias"][None, None])
        low, b, c = jnp.split(inner @ p["selection"], [2, 5], -1)
        step = jax.nn.softplus(low @ p["step"] + p["step_bias"][None, None])
        y = selective_scan(inner, step, -jnp.exp(p["decay_log"]), b, c)
        return (y + inner * p["skip"][None, None]) * jax.nn.silu(gate)

    x = p["embed"][x]
    return rms_norm(x + mixer(p, rms_norm(x)) @ p["out"])


def selective_scan(x, step, decay, b, c):
    """A linear recurrence of each channel's states, over time.

    Of x and step, (batch, time, channel); decay, (channel, state); b and c,
    (batch, time, state).
    """

    def turn(state, now):
        x, step, b, c = now
        kept = jnp.exp(step[..., None] * decay[None])
        state = kept * state + (step * x)[..., None] * b[:, None]
        return state, (state * c[:, None]).sum(-1)

    start = jnp.zeros((len(x), *decay.shape), x.dtype)
    over_time = [z.swapaxes(0, 1) for z in (x, step, b, c)]
    return lax.scan(turn, start, tuple(over_time))[1].swapaxes(0, 1)


@classifier(
    "plain_linear_recurrence",
    {"inner": MATRIX},
    inputs=(121, 6, 5, 4),
    inner=(4, 5),
    gate=(4, 5),
    rate=(5,),
)
def linear_recurrence(p, x):
    """A gated linear recurrence by `lax.associative_scan`, then a norm."""

    def combine(first, second):
        return first[0] * second[0], first[1] * second[0] + second[1]

    decay = jax.nn.softplus(p["rate"])[None, None]
    kept = jnp.exp(-decay * jax.nn.sigmoid(x @ p["gate"]))
    given = jnp.sqrt(1.0 - kept**2) * (x @ p["inner"])
    states = lax.associative_scan(combine, (kept, given), axis=1)[1]
    return jax.nn.gelu(rms_norm(states)).mean(1)


def with_frozen():
    kernels = normal(4, 4, 6), normal(5, 6, 5), normal(6, 5, 3)
    return kernels, *classified()


@given(
    "plain_lora",
    args=with_frozen,
    a_down=(4, 2),
    a_up=(2, 6),
    c_down=(6, 2),
    c_up=(2, 5),
    c_size=np.ones(5),
)
def lora(p, frozen, x, y):
    """Low-rank changes of kernels that are data: one grows as the other falls.

    Of the second kernel only the columns' directions are kept, as in DoRA.
    """
    a, c, head = frozen
    x = x @ a + 2.0 * (x @ p["a_down"] @ p["a_up"])
    kernel = c + 2.0 * (p["c_down"] @ p["c_up"])
    x = jax.nn.gelu(x) @ (unit(kernel, 0) * p["c_size"][None])
    return cross_entropy(jax.nn.gelu(x) @ head, y)
