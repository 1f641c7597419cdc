"""Normalizations and branches of Transformers that the package lacks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.problems import array

Params = dict[str, Any]
Make = Callable[..., Params]


class Part(NamedTuple):
    """A part of a network.

    Attributes:
        params: shapes of its parameters.
        apply: called as apply(params, x), with x of shape
            `(batch, length, width)`.
    """

    params: Params
    apply: Callable[[Params, jax.Array], jax.Array]


def rms_norm(width: int) -> Part:
    """Return RMSNorm."""

    def apply(p: Params, x: jax.Array) -> jax.Array:
        return _unit_rms(x) * p["scale"]

    return Part({"scale": array(width)}, apply)


def layer_norm(width: int) -> Part:
    """Return LayerNorm."""

    def apply(p: Params, x: jax.Array) -> jax.Array:
        x = _unit_rms(x - x.mean(-1, keepdims=True))
        return x * p["scale"] + p["bias"]

    return Part({"scale": array(width), "bias": array(width)}, apply)


def _unit_rms(x: jax.Array) -> jax.Array:
    """Divide by the root mean square of the last axis."""
    return x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6)


def kernel(*shape: int, outputs: int = 1) -> Params:
    """Return the shape of a kernel without a bias."""
    del outputs
    return {"kernel": array(*shape)}


def dense(*shape: int, outputs: int = 1) -> Params:
    """Return the shapes of a kernel and of a bias for its last axes."""
    return {"kernel": array(*shape), "bias": array(*shape[-outputs:])}


def linear(p: Params, x: jax.Array, inputs: int = 1) -> jax.Array:
    """Multiply the last axes by a kernel, and add its bias if there is one."""
    return jnp.tensordot(x, p["kernel"], inputs) + p.get("bias", 0.0)


def attention(width: int, heads: int, make: Make, *, is_causal: bool) -> Part:
    """Return attention with separate kernels of queries, keys and values.

    Args:
        width: number of channels.
        heads: their number.
        make: `kernel`, or `dense` for biases too.
        is_causal: tokens attend to earlier ones alone.
    """
    size = width // heads
    into = make(width, heads, size, outputs=2)
    params = dict.fromkeys(("query", "key", "value"), into)

    def apply(p: Params, x: jax.Array) -> jax.Array:
        parts = (linear(p[name], x) for name in ("query", "key", "value"))
        y = jax.nn.dot_product_attention(*parts, is_causal=is_causal)
        return linear(p["out"], y, 2)

    return Part({**params, "out": make(heads, size, width)}, apply)


def fused_attention(width: int, heads: int) -> Part:
    """Return causal attention with one kernel of queries, keys and values."""
    params = {"qkv": dense(width, 3 * width), "out": dense(width, width)}

    def apply(p: Params, x: jax.Array) -> jax.Array:
        parts = jnp.split(linear(p["qkv"], x), 3, -1)
        parts = (y.reshape(*y.shape[:2], heads, -1) for y in parts)
        y = jax.nn.dot_product_attention(*parts, is_causal=True)
        return linear(p["out"], y.reshape(x.shape))

    return Part(params, apply)


def perceptron(width: int, make: Make) -> Part:
    """Return two linear maps with a GELU between them."""
    params = {"up": make(width, 4 * width), "down": make(4 * width, width)}

    def apply(p: Params, x: jax.Array) -> jax.Array:
        return linear(p["down"], jax.nn.gelu(linear(p["up"], x)))

    return Part(params, apply)


def experts(width: int, count: int = 8) -> Part:
    """Return a mixture of perceptrons, of which each token gets the best two.

    All are computed; the weights of the others are zero.

    References:
        Shazeer et al., [Outrageously large neural
        networks](https://arxiv.org/abs/1701.06538), ICLR 2017.
    """
    params = {
        "router": kernel(width, count),
        "up": kernel(count, width, 4 * width),
        "down": kernel(count, 4 * width, width),
    }

    def apply(p: Params, x: jax.Array) -> jax.Array:
        best, chosen = jax.lax.top_k(linear(p["router"], x), 2)
        weights = jax.nn.softmax(best)[..., None]
        weights = weights * jax.nn.one_hot(chosen, count, dtype=x.dtype)
        y = jnp.einsum("bti,eio->bteo", x, p["up"]["kernel"])
        y = jnp.einsum("bteo,eoi->btei", jax.nn.gelu(y), p["down"]["kernel"])
        return jnp.einsum("btei,btke->bti", y, weights)

    return Part(params, apply)
