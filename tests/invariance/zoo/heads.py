"""Heads that see directions, and the guards of norms."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from .plain import COLUMNS, MATRIX, classifier, standardize, unit, with_head
from .registry import (
    classified,
    cross_entropy,
    given,
    leaky,
    net,
    pair,
    with_params,
)

# -- heads ----------------------------------------------------------------


def of_cosines(logits):
    """Cross entropy of a function of cosines and of the right classes.

    The features come from BatchNorm, whose gains and biases are normalized
    together.
    """

    def loss(p, x, y):
        x = standardize(x @ p["a"], 0) * p["gain"][None] + p["shift"][None]
        cosines = unit(x, 1) @ unit(p["classes"], 0)
        right = jax.nn.one_hot(y, 3, dtype=cosines.dtype)
        return cross_entropy(8.0 * logits(cosines, right), y)

    gain, shift = np.ones(6), np.zeros(6)
    return with_params(loss, a=(4, 6), gain=gain, shift=shift, classes=(6, 3))


COSINES = {"a": COLUMNS, "classes": COLUMNS, **pair("gain", "shift")}
angular = partial(net, expected=COSINES, build=of_cosines)


@angular("plain_cosface")
def cosface(cosines, right):
    """The right class's cosine is made smaller by a margin."""
    return cosines - 0.2 * right


@angular("plain_arcface")
def arcface(cosines, right):
    """The right class's angle is made larger, as far as it stays below pi."""
    sines = jnp.sqrt(jnp.clip(1.0 - cosines**2, 1e-9, 1.0))
    turned = cosines * jnp.cos(0.3) - sines * jnp.sin(0.3)
    least = cosines - jnp.sin(jnp.pi - 0.3) * 0.3
    turned = jnp.where(cosines > jnp.cos(jnp.pi - 0.3), turned, least)
    return right * turned + (1.0 - right) * cosines


@angular("plain_arccos")
def arccos(cosines, right):
    """Of angles themselves; the bounds are passed by rounding alone."""
    angles = jnp.arccos(jnp.clip(cosines, -1.0, 1.0))
    return jnp.cos(angles + 0.3 * right)


@angular("plain_wide_clip")
def wide_clip(cosines, right):
    """Bounds that no cosine reaches, rounding included."""
    return jnp.clip(cosines, -1 - 1e-6, 1 + 1e-6) - 0.2 * right


@given(
    "plain_weight_norm_head",
    {"classes": COLUMNS},
    a=(4, 6),
    classes=(6, 3),
    gain_log=(3,),
)
def weight_norm_head(p, x, y):
    """The gain of a weight-normalized head is its scale."""
    x = jax.nn.gelu(x @ p["a"])
    gain = jnp.exp(p["gain_log"])[None]
    return cross_entropy(x @ (unit(p["classes"], 0) * gain), y)


# -- guards ---------------------------------------------------------------


def normalized_by(divide):
    """Weights are divided by their norms, then examples by theirs."""

    def features(p, x):
        x = leaky(x @ divide(p["a"], 0))
        x = leaky(x @ divide(p["c"], (0, 1)))
        return leaky(divide(x @ p["d"], 1))

    return with_head(features, **THREE)


THREE = {"a": (4, 6), "c": (6, 5), "d": (5, 4)}
DIVIDED = {"a": COLUMNS, "c": MATRIX, "d": MATRIX}
guard = partial(net, expected=DIVIDED, build=normalized_by)


@guard("plain_where_zero")
def where_zero(w, axes):
    """A norm of zero is replaced by one."""
    norm = jnp.linalg.norm(w, axis=axes, keepdims=True)
    return w / jnp.where(norm == 0, 1.0, norm)


@guard("plain_safe_norm")
def safe_norm(w, axes):
    """optax.safe_norm is at least a given number, with a gradient of zero."""
    return w / optax.safe_norm(w, 1e-6, axis=axes, keepdims=True)


@guard("plain_nan_to_num")
def nan_to_num(w, axes):
    """Zero divided by zero is made zero."""
    return jnp.nan_to_num(unit(w, axes))


@classifier("plain_other_guards", DIVIDED, **THREE)
def other_guards(p, x):
    """Two selections for a gradient without NaN; one is added where needed."""

    def twice(w, axes):
        square = (w**2).sum(axes, keepdims=True)
        norm = jnp.sqrt(jnp.where(square > 0, square, 1.0))
        return jnp.where(square > 0, w / norm, 0.0)

    def corrected(w, axes):
        norm = jnp.linalg.norm(w, axis=axes, keepdims=True)
        return w / (norm + (norm == 0).astype(w.dtype))

    x = leaky(x @ twice(p["a"], 0))
    x = leaky(x @ corrected(p["c"], (0, 1)))
    return leaky(twice(x @ p["d"], 1)) + corrected(x @ p["d"], 1)


@classifier("plain_rarer_guards", DIVIDED, **THREE)
def rarer_guards(p, x):
    """A maximum of what is no NaN, a branch, and an inverse made finite."""
    norm = jnp.linalg.norm(p["a"], axis=0, keepdims=True)
    x = leaky(x @ (p["a"] / jnp.fmax(norm, 1e-8)))
    square = (p["c"] ** 2).sum()
    by_root = lambda w: w * lax.rsqrt(square)  # noqa: E731
    x = leaky(x @ lax.cond(square > 0, by_root, lambda w: w, p["c"]))
    return leaky(x @ p["d"] * jnp.nan_to_num(lax.rsqrt((p["d"] ** 2).sum())))


@classifier("plain_large_guards", a=(4, 6), c=(6, 5))
def large_guards(p, x):
    """Guards that act where a norm is far from zero."""
    norm = jnp.linalg.norm(p["a"], axis=0, keepdims=True)
    x = leaky(x @ (p["a"] / jnp.where(norm < 5.0, 5.0, norm)))
    return leaky(x @ (p["c"] / optax.safe_norm(p["c"], 20.0)))


with_epsilon = partial(given, a=(4, 6), c=(6, 5), head=(5, 3))


@with_epsilon("plain_large_epsilon_argument", args=lambda: (*classified(), 0.5))
@with_epsilon(
    "plain_epsilon_argument",
    {"a": COLUMNS, "c": COLUMNS},
    args=lambda: (*classified(), 1e-5),
)
def epsilon_argument(p, x, y, epsilon):
    """An epsilon that the program does not know."""
    x = leaky(standardize(x @ p["a"], 0, epsilon))
    x = leaky(standardize(x @ p["c"], 0, epsilon))
    return cross_entropy(x @ p["head"], y)


@given("plain_l2_penalty", a=(4, 6), gain=np.ones(6), c=(6, 5), head=(5, 3))
def l2_penalty(p, x, y):
    """Of all weights, in a network that is normalized throughout."""
    h = leaky(standardize(x @ p["a"], 0) * p["gain"][None])
    h = leaky(standardize(h @ p["c"], 0))
    penalty = sum((w**2).sum() for w in p.values())
    return cross_entropy(h @ p["head"], y) + 1e-3 * penalty
