"""Networks for sequences of tokens."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from psi_optax import ScaleGroup

from .plain import HEADS, MATRIX, rms_norm, unit, with_head
from .registry import cross_entropy, labels, net, normal, tied, tokens, vectors

causal = functools.partial(jax.nn.dot_product_attention, is_causal=True)

ROWS, COLUMNS = ScaleGroup(1), ScaleGroup(0)


def next_tokens(hidden, **params):
    """Cross entropy of the token that follows, by a head `unembed`."""

    def loss(p, x, y):
        return cross_entropy(hidden(p, x) @ p["unembed"], y)

    x = tokens()
    return loss, params, (x, (x * 3 + 1) % 7)


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
    """The writers of the stream: of a branch, a first or a second kernel."""
    axes = {"embed": (0, 1), down: (0, 1), out: (0, 1, 2)}
    return {"query": HEADS, "key": HEADS, **tied(**axes)}


@net(
    "plain_grouped_query_attention",
    gqa("down", "out"),
    (gqa("up", "out"), gqa("down", "value"), gqa("up", "value")),
)
def grouped_query_attention():
    """QK-norm with gains, then RoPE; two queries share a key and a value."""

    def hidden(p, x):
        x = p["embed"][x]
        y = rms_norm(x)
        q = rms_norm(heads(y, p["query"])) * p["query_gain"]
        k = rms_norm(heads(y, p["key"])) * p["key_gain"]
        y = causal(rotate(q), rotate(k), heads(y, p["value"]))
        x = x + jnp.einsum("bthd,hdo->bto", y, p["out"])
        y = rms_norm(x)
        x = x + (jax.nn.silu(y @ p["gate"]) * (y @ p["up"])) @ p["down"]
        return rms_norm(x)

    return next_tokens(
        hidden,
        embed=normal(0, 7, 5),
        query=normal(1, 5, 4, 4),
        query_gain=jnp.ones((1, 1, 1, 4)),
        key=normal(2, 5, 2, 4),
        key_gain=jnp.ones((1, 1, 1, 4)),
        value=normal(3, 5, 2, 4),
        out=normal(4, 4, 4, 5),
        gate=normal(5, 5, 6),
        up=normal(6, 5, 6),
        down=normal(7, 6, 5),
        unembed=0.5 * normal(8, 5, 7),
    )


@net(
    "plain_ngpt",
    {
        "embed": ROWS,
        **dict.fromkeys(("query", "key", "value"), COLUMNS),
        "out": ScaleGroup(2),
        "up": COLUMNS,
        "gate": COLUMNS,
        "up_scale": ScaleGroup((0, 1, 2)),
        "down": ROWS,
        "unembed": COLUMNS,
    },
)
def ngpt():
    """All vectors of the width of the model have norm one, weights too.

    What is multiplied by `up_scale` goes through a linear layer to a norm.
    """

    def hidden(p, x):
        x = unit(p["embed"], 1)[x]
        q, k, v = (heads(x, unit(p[n], 0)) for n in ("query", "key", "value"))
        q, k = (unit(z, -1) * p["attention_scale"] for z in (q, k))
        y = causal(rotate(q) * 2.0, rotate(k), v)
        y = jnp.einsum("bthd,hdo->bto", y, unit(p["out"], 2))
        x = unit(x + p["attention_rate"] * (unit(y, -1) - x), -1)
        up = (x @ unit(p["up"], 0)) * p["up_scale"]
        gate = (x @ unit(p["gate"], 0)) * p["gate_scale"] * 5.0**0.5
        y = (up * jax.nn.silu(gate)) @ unit(p["down"], 1)
        return unit(x + p["mlp_rate"] * (unit(y, -1) - x), -1)

    def loss(p, x, y):
        logits = hidden(p, x) @ unit(p["unembed"], 0)
        return cross_entropy(logits * p["logit_scale"], y)

    x = tokens()
    params = {
        "embed": normal(0, 7, 5),
        "query": normal(1, 5, 2, 4),
        "key": normal(2, 5, 2, 4),
        "value": normal(3, 5, 2, 4),
        "attention_scale": jnp.ones((1, 1, 2, 4)),
        "attention_rate": jnp.full((1, 1, 5), 0.5),
        "out": normal(4, 2, 4, 5),
        "up": normal(5, 5, 6),
        "gate": normal(6, 5, 6),
        "up_scale": jnp.ones((1, 1, 6)),
        "gate_scale": jnp.ones((1, 1, 6)),
        "down": normal(7, 6, 5),
        "mlp_rate": jnp.full((1, 1, 5), 0.5),
        "unembed": normal(8, 5, 7),
        "logit_scale": jnp.ones((1, 1, 7)),
    }
    return loss, params, (x, (x * 3 + 1) % 7)


@net(
    "plain_ragged_experts",
    {"up": ScaleGroup((1, 2)), "down": ScaleGroup((1, 2))},
)
def ragged_experts():
    """Examples are sorted by expert, multiplied, normalized, and unsorted."""

    def features(p, x):
        gates = jax.nn.softmax(x @ p["router"])
        chosen = gates.argmax(-1)
        order = jnp.argsort(chosen)
        sizes = jnp.bincount(chosen, length=3).astype(jnp.int32)
        y = lax.ragged_dot(x[order], p["up"], sizes)
        y = rms_norm(lax.ragged_dot(jax.nn.relu(y), p["down"], sizes))
        y = y[jnp.argsort(order)]
        return y * jnp.take_along_axis(gates, chosen[:, None], -1)

    return with_head(
        features,
        vectors(24),
        router=normal(0, 4, 3),
        up=normal(1, 3, 4, 6),
        down=normal(2, 3, 6, 5),
    )


@net("plain_mamba", tied(embed=(0, 1), out=(0, 1)))
def mamba():
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

    def hidden(p, x):
        x = p["embed"][x]
        return rms_norm(x + mixer(p, rms_norm(x)) @ p["out"])

    return next_tokens(
        hidden,
        embed=normal(0, 7, 5),
        inner=normal(1, 5, 8),
        conv=normal(2, 3, 4),
        conv_bias=normal(3, 4),
        selection=normal(4, 4, 8),
        step=normal(5, 2, 4),
        step_bias=normal(6, 4),
        decay_log=0.3 * normal(7, 4, 3),
        skip=normal(8, 4),
        out=normal(9, 4, 5),
        unembed=0.5 * normal(10, 5, 7),
    )


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


@net("plain_linear_recurrence", {"inner": MATRIX})
def linear_recurrence():
    """A gated linear recurrence by `lax.associative_scan`, then a norm."""

    def combine(first, second):
        return first[0] * second[0], first[1] * second[0] + second[1]

    def features(p, x):
        decay = jax.nn.softplus(p["rate"])[None, None]
        kept = jnp.exp(-decay * jax.nn.sigmoid(x @ p["gate"]))
        given = jnp.sqrt(1.0 - kept**2) * (x @ p["inner"])
        states = lax.associative_scan(combine, (kept, given), axis=1)[1]
        return jax.nn.gelu(rms_norm(states)).mean(1)

    return with_head(
        features,
        normal(121, 6, 5, 4),
        inner=normal(0, 4, 5),
        gate=normal(1, 4, 5),
        rate=normal(2, 5),
    )


@net("plain_lora")
def lora():
    """Low-rank changes of kernels that are data: one grows as the other falls.

    Of the second kernel only the columns' directions are kept, as in DoRA.
    """

    def loss(p, frozen, x, y):
        x = x @ frozen["a"] + 2.0 * (x @ p["a_down"] @ p["a_up"])
        kernel = frozen["c"] + 2.0 * (p["c_down"] @ p["c_up"])
        x = jax.nn.gelu(x) @ (unit(kernel, 0) * p["c_size"][None])
        return cross_entropy(jax.nn.gelu(x) @ frozen["head"], y)

    params = {
        "a_down": normal(0, 4, 2),
        "a_up": normal(1, 2, 6),
        "c_down": normal(2, 6, 2),
        "c_up": normal(3, 2, 5),
        "c_size": jnp.ones(5),
    }
    frozen = {
        "a": normal(4, 4, 6),
        "c": normal(5, 6, 5),
        "head": normal(6, 5, 3),
    }
    return loss, params, (frozen, vectors(), labels(12))
