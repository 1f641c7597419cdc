"""Losses that compare embeddings of two views."""

import jax
import jax.numpy as jnp
import optax
from jax import lax

from .plain import COLUMNS, MATRIX, standardize, unit
from .registry import cross_entropy, given, leaky, normal, vectors


def views():
    return vectors(), vectors() + 0.3 * normal(140, 12, 4)


@given(
    "plain_contrastive",
    {"image": MATRIX, "text": MATRIX},
    args=views,
    a=(4, 6),
    image=(6, 5),
    c=(4, 6),
    text=(6, 5),
    temperature=1.0,
)
def contrastive(p, x, z):
    """Cosines of all pairs; images' and texts' encoders end without a bias."""
    x = unit(jax.nn.gelu(x @ p["a"]) @ p["image"], -1)
    z = unit(jax.nn.gelu(z @ p["c"]) @ p["text"], -1)
    logits = jnp.exp(p["temperature"]) * (x @ z.T)
    right = jnp.arange(len(x))
    return cross_entropy(logits, right) + cross_entropy(logits.T, right)


@given(
    "plain_simsiam",
    {"a": COLUMNS, "c": MATRIX, "b": COLUMNS, "d": MATRIX},
    args=views,
    a=(4, 6),
    c=(6, 5),
    b=(5, 4),
    d=(4, 5),
)
def simsiam(p, x, z):
    """A prediction of the other view, which gets no gradient."""

    def embed(p, x):
        return leaky(standardize(x @ p["a"], 0)) @ p["c"]

    def distance(p, x, other):
        x = leaky(standardize(x @ p["b"], 0)) @ p["d"]
        other = lax.stop_gradient(other)
        return -optax.losses.cosine_similarity(x, other, epsilon=1e-6).mean()

    x, z = embed(p, x), embed(p, z)
    return distance(p, x, z) + distance(p, z, x)


@given(
    "plain_barlow_twins",
    {"a": MATRIX, "c": COLUMNS},
    args=views,
    a=(4, 6),
    c=(6, 5),
)
def barlow_twins(p, x, z):
    """Correlations of the features of two views: each has its own scale."""
    x, z = (standardize(leaky(v @ p["a"]) @ p["c"], 0) for v in (x, z))
    correlation = x.T @ z / len(x)
    identity = jnp.eye(len(correlation), dtype=x.dtype)
    weight = identity + 0.1 * (1.0 - identity)
    return (weight * (correlation - identity) ** 2).sum()


@given("plain_vicreg", args=views, a=(4, 6), c=0.2 * normal(1, 6, 5))
def vicreg(p, x, z):
    """Variances are kept above one: it is no norm."""

    def regular(x):
        x = x - x.mean(0, keepdims=True)
        covariance = x.T @ x / len(x)
        off = 1.0 - jnp.eye(len(covariance), dtype=x.dtype)
        short = jax.nn.relu(1.0 - jnp.sqrt(x.var(0) + 1e-4))
        return short.mean() + (off * covariance**2).mean()

    x, z = (leaky(v @ p["a"]) @ p["c"] for v in (x, z))
    return ((x - z) ** 2).mean() + regular(x) + regular(z)


@given(
    "plain_cosine_codebook",
    {"encode": MATRIX, "codes": COLUMNS},
    args=lambda: (vectors(24), vectors(24)),
    a=(4, 6),
    encode=(6, 3),
    codes=(3, 5),
    decode=(3, 4),
)
def cosine_codebook(p, x, _):
    """The nearest code, by cosine, in place of what is encoded."""
    encoded = unit(jax.nn.gelu(x @ p["a"]) @ p["encode"], -1)
    codes = unit(p["codes"], 0)
    chosen = codes[:, (encoded @ codes).argmax(-1)].T
    through = encoded + lax.stop_gradient(chosen - encoded)
    decoded = jax.nn.gelu(through @ p["decode"])
    committed = ((encoded - lax.stop_gradient(chosen)) ** 2).mean()
    learned = ((chosen - lax.stop_gradient(encoded)) ** 2).mean()
    return ((decoded - x) ** 2).mean() + committed + 0.25 * learned
