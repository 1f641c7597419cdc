"""A state-space layer whose step and matrices depend on the input.

References:
    Gu and Dao, [Mamba](https://arxiv.org/abs/2312.00752), 2023, Section 3.
"""

import jax
import jax.numpy as jnp

from benchmarks.experiments.architectures.branches import (
    Params,
    Part,
    dense,
    kernel,
    linear,
)
from benchmarks.problems import array

STATES, TAPS = 16, 4


def mamba(width: int) -> Part:
    """Return the layer, with twice as many channels as its input."""
    inner, rank = 2 * width, max(1, width // 16)
    params = {
        "inner": kernel(width, 2 * inner),
        "convolution": dense(TAPS, inner),
        "selection": kernel(inner, rank + 2 * STATES),
        "step": dense(rank, inner),
        "decay_log": array(inner, STATES),
        "skip": array(inner),
        "out": kernel(inner, width),
    }

    def apply(p: Params, x: jax.Array) -> jax.Array:
        x, gate = jnp.split(linear(p["inner"], x), 2, -1)
        x = jax.nn.silu(_causal_convolution(p["convolution"], x))
        selected = linear(p["selection"], x)
        low, b, c = jnp.split(selected, [rank, rank + STATES], -1)
        step = jax.nn.softplus(linear(p["step"], low))
        y = _selective_scan(x, step, -jnp.exp(p["decay_log"]), b, c)
        return linear(p["out"], (y + x * p["skip"]) * jax.nn.silu(gate))

    return Part(params, apply)


def _causal_convolution(p: Params, x: jax.Array) -> jax.Array:
    """Convolve each channel over time with taps of its own."""
    padded = jnp.pad(x, ((0, 0), (TAPS - 1, 0), (0, 0)))
    delayed = [padded[:, k : k + x.shape[1]] for k in range(TAPS)]
    total = jnp.einsum("kbti,ki->bti", jnp.stack(delayed), p["kernel"])
    return total + p["bias"]


def _selective_scan(
    x: jax.Array, step: jax.Array, decay: jax.Array, b: jax.Array, c: jax.Array
) -> jax.Array:
    """Return outputs of a linear recurrence of each channel's states.

    Args:
        x: of shape `(batch, time, channel)`.
        step: like x.
        decay: of shape `(channel, state)`.
        b: of shape `(batch, time, state)`.
        c: like b.
    """

    def turn(
        state: jax.Array, now: tuple[jax.Array, ...]
    ) -> tuple[jax.Array, jax.Array]:
        x, step, b, c = now
        state = state * jnp.exp(step[..., None] * decay)
        state = state + (step * x)[..., None] * b[:, None]
        return state, jnp.einsum("bis,bs->bi", state, c)

    start = jnp.zeros((len(x), *decay.shape), x.dtype)
    over_time = tuple(z.swapaxes(0, 1) for z in (x, step, b, c))
    return jax.lax.scan(turn, start, over_time)[1].swapaxes(0, 1)
