"""Weights that are rounded: the gradient goes straight through."""

import jax.numpy as jnp
import numpy as np
from jax import lax

from .plain import COLUMNS, MATRIX, classifier, rms_norm, standardize
from .registry import leaky, normal, tied


def straight_through(value, x):
    """A value with the gradient of x."""
    return x + lax.stop_gradient(value - x)


def quantized(w, step):
    """A kernel in multiples of a step."""
    levels = jnp.clip(w / step, -8.0, 7.0)
    return straight_through(jnp.round(levels), levels) * step


@classifier(
    "plain_learned_steps",
    {**tied(a=(0,), a_step=()), **tied(c=(0, 1), c_step=())},
    a=3.0 * normal(0, 4, 6),
    a_step=np.full(6, 1.5),
    c=3.0 * normal(1, 6, 5),
    c_step=1.5,
    d=3.0 * normal(2, 5, 4),
    d_step=1.5,
)
def learned_steps(p, x):
    """Each step is learned, as in LSQ: it grows with its weights.

    One for each column, one for a kernel, and one of a kernel in front of no
    norm, which is ordinary, as its step is.
    """

    def step(p, name):
        # The gradient of a step is made smaller, its value is not.
        return straight_through(p[name], 0.1 * p[name])

    a = quantized(p["a"], step(p, "a_step")[None])
    x = leaky(standardize(x @ a, 0))
    x = leaky(rms_norm(x @ quantized(p["c"], step(p, "c_step"))))
    return leaky(x @ quantized(p["d"], step(p, "d_step")))


@classifier("plain_fixed_step", a=3.0 * normal(0, 4, 6))
def fixed_step(p, x):
    """A step that is a constant does not grow with its kernel."""
    return leaky(standardize(x @ quantized(p["a"], 1.5), 0))


@classifier(
    "plain_absmax_quantization",
    {"a": COLUMNS, "c": MATRIX, "d": MATRIX},
    a=(4, 6),
    c=(6, 5),
    d=(5, 5),
)
def absmax_quantization(p, x):
    """The step is the largest weight, or the mean size of all as in BitNet.

    Columns with steps of their own, then a kernel with one, then ternary
    weights; activations are rounded too, by each example's largest.
    """

    def rounded(x, axes, levels=7.0):
        step = jnp.abs(x).max(axes, keepdims=True) / levels
        return straight_through(jnp.round(x / step) * step, x)

    def ternary(w):
        size = jnp.abs(w).mean()
        levels = jnp.clip(jnp.round(w / size), -1.0, 1.0)
        return straight_through(levels * size, w)

    x = leaky(standardize(rounded(x, 1) @ rounded(p["a"], 0), 0))
    x = leaky(standardize(rounded(x, 1) @ rounded(p["c"], (0, 1)), 0))
    return leaky(rms_norm(rounded(x, 1, 127.0) @ ternary(p["d"])))
