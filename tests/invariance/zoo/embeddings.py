"""Losses that compare embeddings of two views."""

import jax
import jax.numpy as jnp
import optax
from jax import lax

from .plain import COLUMNS, MATRIX, standardize, unit
from .registry import cross_entropy, leaky, net, normal, vectors


def views():
    return vectors(), vectors() + 0.3 * normal(140, 12, 4)


@net("plain_contrastive", {"image": MATRIX, "text": MATRIX})
def contrastive():
    """Cosines of all pairs; images' and texts' encoders end without a bias."""

    def loss(p, x, z):
        x = unit(jax.nn.gelu(x @ p["a"]) @ p["image"], -1)
        z = unit(jax.nn.gelu(z @ p["c"]) @ p["text"], -1)
        logits = jnp.exp(p["temperature"]) * (x @ z.T)
        right = jnp.arange(len(x))
        return cross_entropy(logits, right) + cross_entropy(logits.T, right)

    params = {
        "a": normal(0, 4, 6),
        "image": normal(1, 6, 5),
        "c": normal(2, 4, 6),
        "text": normal(3, 6, 5),
        "temperature": jnp.asarray(1.0),
    }
    return loss, params, views()


@net("plain_simsiam", {"a": COLUMNS, "c": MATRIX, "b": COLUMNS, "d": MATRIX})
def simsiam():
    """A prediction of the other view, which gets no gradient."""

    def embed(p, x):
        return leaky(standardize(x @ p["a"], 0)) @ p["c"]

    def distance(p, x, other):
        x = leaky(standardize(x @ p["b"], 0)) @ p["d"]
        other = lax.stop_gradient(other)
        return -optax.losses.cosine_similarity(x, other, epsilon=1e-6).mean()

    def loss(p, x, z):
        x, z = embed(p, x), embed(p, z)
        return distance(p, x, z) + distance(p, z, x)

    params = {
        "a": normal(0, 4, 6),
        "c": normal(1, 6, 5),
        "b": normal(2, 5, 4),
        "d": normal(3, 4, 5),
    }
    return loss, params, views()


@net("plain_barlow_twins", {"a": MATRIX, "c": COLUMNS})
def barlow_twins():
    """Correlations of the features of two views: each has its own scale."""

    def loss(p, x, z):
        x, z = (standardize(leaky(v @ p["a"]) @ p["c"], 0) for v in (x, z))
        correlation = x.T @ z / len(x)
        identity = jnp.eye(len(correlation), dtype=x.dtype)
        weight = identity + 0.1 * (1.0 - identity)
        return (weight * (correlation - identity) ** 2).sum()

    params = {"a": normal(0, 4, 6), "c": normal(1, 6, 5)}
    return loss, params, views()


@net("plain_vicreg")
def vicreg():
    """Variances are kept above one: it is no norm."""

    def regular(x):
        x = x - x.mean(0, keepdims=True)
        covariance = x.T @ x / len(x)
        off = 1.0 - jnp.eye(len(covariance), dtype=x.dtype)
        short = jax.nn.relu(1.0 - jnp.sqrt(x.var(0) + 1e-4))
        return short.mean() + (off * covariance**2).mean()

    def loss(p, x, z):
        x, z = (leaky(v @ p["a"]) @ p["c"] for v in (x, z))
        return ((x - z) ** 2).mean() + regular(x) + regular(z)

    params = {"a": normal(0, 4, 6), "c": 0.2 * normal(1, 6, 5)}
    return loss, params, views()


@net("plain_cosine_codebook", {"encode": MATRIX, "codes": COLUMNS})
def cosine_codebook():
    """The nearest code, by cosine, in place of what is encoded."""

    def loss(p, x, _):
        encoded = unit(jax.nn.gelu(x @ p["a"]) @ p["encode"], -1)
        codes = unit(p["codes"], 0)
        chosen = codes[:, (encoded @ codes).argmax(-1)].T
        through = encoded + lax.stop_gradient(chosen - encoded)
        decoded = jax.nn.gelu(through @ p["decode"])
        committed = ((encoded - lax.stop_gradient(chosen)) ** 2).mean()
        learned = ((chosen - lax.stop_gradient(encoded)) ** 2).mean()
        return ((decoded - x) ** 2).mean() + committed + 0.25 * learned

    params = {
        "a": normal(0, 4, 6),
        "encode": normal(1, 6, 3),
        "codes": normal(2, 3, 5),
        "decode": normal(3, 3, 4),
    }
    return loss, params, (vectors(24), vectors(24))
