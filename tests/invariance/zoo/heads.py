"""Heads that see directions, and the guards of norms."""

import jax
import jax.numpy as jnp
import optax
from jax import lax

from .plain import (
    COLUMNS,
    MATRIX,
    classify,
    standardize,
    unit,
)
from .registry import cross_entropy, labels, leaky, net, normal, pair, vectors

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

    params = {
        "a": normal(0, 4, 6),
        "gain": jnp.ones(6),
        "shift": jnp.zeros(6),
        "classes": normal(1, 6, 3),
    }
    return loss, params, (vectors(), labels(12))


COSINES = {"a": COLUMNS, "classes": COLUMNS, **pair("gain", "shift")}


@net("plain_cosface", COSINES)
def cosface():
    """The right class's cosine is made smaller by a margin."""
    return of_cosines(lambda cosines, right: cosines - 0.2 * right)


@net("plain_arcface", COSINES)
def arcface():
    """The right class's angle is made larger, as far as it stays below pi."""

    def logits(cosines, right):
        sines = jnp.sqrt(jnp.clip(1.0 - cosines**2, 1e-9, 1.0))
        turned = cosines * jnp.cos(0.3) - sines * jnp.sin(0.3)
        least = cosines - jnp.sin(jnp.pi - 0.3) * 0.3
        turned = jnp.where(cosines > jnp.cos(jnp.pi - 0.3), turned, least)
        return right * turned + (1.0 - right) * cosines

    return of_cosines(logits)


@net("plain_arccos", COSINES)
def arccos():
    """Of angles themselves; the bounds are passed by rounding alone."""

    def logits(cosines, right):
        angles = jnp.arccos(jnp.clip(cosines, -1.0, 1.0))
        return jnp.cos(angles + 0.3 * right)

    return of_cosines(logits)


@net("plain_wide_clip", COSINES)
def wide_clip():
    """Bounds that no cosine reaches, rounding included."""
    return of_cosines(
        lambda cosines, right: (
            jnp.clip(cosines, -1 - 1e-6, 1 + 1e-6) - 0.2 * right
        )
    )


@net("plain_weight_norm_head", {"classes": COLUMNS})
def weight_norm_head():
    """The gain of a weight-normalized head is its scale."""

    def loss(p, x, y):
        x = jax.nn.gelu(x @ p["a"])
        gain = jnp.exp(p["gain_log"])[None]
        return cross_entropy(x @ (unit(p["classes"], 0) * gain), y)

    params = {
        "a": normal(0, 4, 6),
        "classes": normal(1, 6, 3),
        "gain_log": normal(2, 3),
    }
    return loss, params, (vectors(), labels(12))


# -- guards ---------------------------------------------------------------


def normalized_by(divide):
    """Weights are divided by their norms, then examples by theirs."""

    def features(p, x):
        x = leaky(x @ divide(p["a"], 0))
        x = leaky(x @ divide(p["c"], (0, 1)))
        return leaky(divide(x @ p["d"], 1))

    return classify(
        features,
        a=normal(0, 4, 6),
        c=normal(1, 6, 5),
        d=normal(2, 5, 4),
    )


@net("plain_where_zero", {"a": COLUMNS, "c": MATRIX, "d": MATRIX})
def where_zero():
    """A norm of zero is replaced by one."""

    def divide(w, axes):
        norm = jnp.linalg.norm(w, axis=axes, keepdims=True)
        return w / jnp.where(norm == 0, 1.0, norm)

    return normalized_by(divide)


@net("plain_safe_norm", {"a": COLUMNS, "c": MATRIX, "d": MATRIX})
def safe_norm():
    """optax.safe_norm is at least a given number, with a gradient of zero."""

    def divide(w, axes):
        return w / optax.safe_norm(w, 1e-6, axis=axes, keepdims=True)

    return normalized_by(divide)


@net("plain_nan_to_num", {"a": COLUMNS, "c": MATRIX, "d": MATRIX})
def nan_to_num():
    """Zero divided by zero is made zero."""
    return normalized_by(lambda w, axes: jnp.nan_to_num(unit(w, axes)))


@net("plain_other_guards", {"a": COLUMNS, "c": MATRIX, "d": MATRIX})
def other_guards():
    """Two selections for a gradient without NaN; one is added where needed."""

    def twice(w, axes):
        square = (w**2).sum(axes, keepdims=True)
        norm = jnp.sqrt(jnp.where(square > 0, square, 1.0))
        return jnp.where(square > 0, w / norm, 0.0)

    def corrected(w, axes):
        norm = jnp.linalg.norm(w, axis=axes, keepdims=True)
        return w / (norm + (norm == 0).astype(w.dtype))

    def features(p, x):
        x = leaky(x @ twice(p["a"], 0))
        x = leaky(x @ corrected(p["c"], (0, 1)))
        return leaky(twice(x @ p["d"], 1)) + corrected(x @ p["d"], 1)

    return classify(
        features,
        a=normal(0, 4, 6),
        c=normal(1, 6, 5),
        d=normal(2, 5, 4),
    )


@net("plain_rarer_guards", {"a": COLUMNS, "c": MATRIX, "d": MATRIX})
def rarer_guards():
    """A maximum of what is no NaN, a branch, and an inverse made finite."""

    def features(p, x):
        norm = jnp.linalg.norm(p["a"], axis=0, keepdims=True)
        x = leaky(x @ (p["a"] / jnp.fmax(norm, 1e-8)))
        square = (p["c"] ** 2).sum()
        kernel = lax.cond(
            square > 0,
            lambda w: w * lax.rsqrt(square),
            lambda w: w,
            p["c"],
        )
        x = leaky(x @ kernel)
        return leaky(
            x @ p["d"] * jnp.nan_to_num(lax.rsqrt((p["d"] ** 2).sum()))
        )

    return classify(
        features,
        a=normal(0, 4, 6),
        c=normal(1, 6, 5),
        d=normal(2, 5, 4),
    )


@net("plain_large_guards")
def large_guards():
    """Guards that act where a norm is far from zero."""

    def features(p, x):
        norm = jnp.linalg.norm(p["a"], axis=0, keepdims=True)
        x = leaky(x @ (p["a"] / jnp.where(norm < 5.0, 5.0, norm)))
        return leaky(x @ (p["c"] / optax.safe_norm(p["c"], 20.0)))

    return classify(
        features,
        a=normal(0, 4, 6),
        c=normal(1, 6, 5),
    )


@net("plain_epsilon_argument", {"a": COLUMNS, "c": COLUMNS})
def epsilon_argument():
    """An epsilon that the program does not know."""

    def loss(p, x, y, epsilon):
        x = leaky(standardize(x @ p["a"], 0, epsilon))
        x = leaky(standardize(x @ p["c"], 0, epsilon))
        return cross_entropy(x @ p["head"], y)

    params = {
        "a": normal(0, 4, 6),
        "c": normal(1, 6, 5),
        "head": normal(2, 5, 3),
    }
    return loss, params, (vectors(), labels(12), jnp.asarray(1e-5))


@net("plain_large_epsilon_argument")
def large_epsilon_argument():
    loss, params, (x, y, _) = epsilon_argument()
    return loss, params, (x, y, jnp.asarray(0.5))


@net("plain_l2_penalty")
def l2_penalty():
    """Of all weights, in a network that is normalized throughout."""

    def loss(p, x, y):
        h = leaky(standardize(x @ p["a"], 0) * p["gain"][None])
        h = leaky(standardize(h @ p["c"], 0))
        penalty = sum((w**2).sum() for w in p.values())
        return cross_entropy(h @ p["head"], y) + 1e-3 * penalty

    params = {
        "a": normal(0, 4, 6),
        "gain": jnp.ones(6),
        "c": normal(1, 6, 5),
        "head": normal(2, 5, 3),
    }
    return loss, params, (vectors(), labels(12))
