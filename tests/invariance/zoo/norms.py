"""Norms that are no mean and variance of a batch, and others beside them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from psi_optax import ScaleGroup

from .plain import (
    COLUMNS,
    FILTERS,
    MATRIX,
    classifier,
    convolve,
    standardize,
    unit,
)
from .registry import INERT, images, leaky, pair, tied

ALL = ScaleGroup((0, 1, 2, 3))


@classifier(
    "plain_filter_response_norm",
    {"a": FILTERS, "c": FILTERS, **tied(gain=(0,), shift=(0,), least=(0,))},
    inputs=partial(images, size=6),
    a=(3, 3, 3, 4),
    gain=np.ones(4),
    shift=np.zeros(4),
    least=np.zeros(4),
    c=(3, 3, 4, 5),
)
def filter_response_norm(p, x):
    """Divided by the mean square over positions, then a learned threshold."""

    def normalized(x):
        square = (x**2).mean((1, 2), keepdims=True)
        return x * lax.rsqrt(square + 1e-6)

    x = normalized(convolve(x, p["a"]))
    x = x * p["gain"][None, None, None] + p["shift"][None, None, None]
    x = jnp.maximum(x, p["least"][None, None, None])
    return leaky(normalized(convolve(x, p["c"]))).mean((1, 2))


@classifier(
    "plain_switchable_norm",
    {"a": ALL},
    inputs=partial(images, size=6),
    a=(3, 3, 3, 5),
    means=(3,),
    variances=(3,),
)
def switchable_norm(p, x):
    """Means and variances of three kinds are mixed by softmaxes."""
    x = convolve(x, p["a"])
    kinds = ((1, 2), (1, 2, 3), (0, 1, 2))
    means = [x.mean(axes, keepdims=True) for axes in kinds]
    variances = [x.var(axes, keepdims=True) for axes in kinds]
    shares = jax.nn.softmax(p["means"]), jax.nn.softmax(p["variances"])
    mean = sum(s * m for s, m in zip(shares[0], means, strict=True))
    variance = sum(s * v for s, v in zip(shares[1], variances, strict=True))
    return leaky((x - mean) * lax.rsqrt(variance + 1e-5)).mean((1, 2))


@classifier("plain_batch_renormalization", a=(4, 6))
def batch_renormalization(p, x):
    """Corrected by running statistics, within bounds that do not act.

    Where they do not, the batch's own statistics drop out of the value.
    """
    x = x @ p["a"]
    mean, size = x.mean(0), x.std(0)
    ratio = lax.stop_gradient(jnp.clip(size / 2.0, 0.01, 100.0))
    moved = lax.stop_gradient(jnp.clip((mean - 0.1) / 2.0, -100.0, 100.0))
    x = (x - mean[None]) / size[None] * ratio[None] + moved[None]
    return leaky(x)


@classifier(
    "plain_cholesky_whitening",
    {"a": COLUMNS, "a_bias": INERT},
    a=(4, 3),
    a_bias=np.zeros(3),
)
def cholesky_whitening(p, x):
    """Features are made uncorrelated, by a Cholesky factor.

    Its rows scale as the features do.
    """
    x = x @ p["a"] + p["a_bias"][None]
    x = x - x.mean(0, keepdims=True)
    covariance = x.T @ x / len(x) + 1e-6 * jnp.eye(3, dtype=x.dtype)
    factor = jnp.linalg.cholesky(covariance)
    return leaky(jax.scipy.linalg.solve_triangular(factor, x.T, lower=True).T)


@classifier(
    "plain_iterative_whitening",
    {"a": MATRIX, "a_bias": INERT},
    a=(4, 3),
    a_bias=np.zeros(3),
)
def iterative_whitening(p, x):
    """The same by Newton's iteration, from the covariance over its trace."""
    x = x @ p["a"] + p["a_bias"][None]
    x = x - x.mean(0, keepdims=True)
    identity = jnp.eye(3, dtype=x.dtype)
    covariance = x.T @ x / len(x) + 1e-6 * identity
    trace = jnp.trace(covariance)
    root = identity
    for _ in range(5):
        cube = root @ root @ root @ (covariance / trace)
        root = 1.5 * root - 0.5 * cube
    return leaky(x @ root * lax.rsqrt(trace))


@classifier("plain_exact_spectral_norm", {"a": MATRIX}, a=(4, 6))
def exact_spectral_norm(p, x):
    """By the largest singular value, from a decomposition."""
    return leaky(x @ (p["a"] / jnp.linalg.norm(p["a"], 2)))


@classifier("plain_newton_schulz", {"a": MATRIX}, a=(4, 6))
def newton_schulz(p, x):
    """Made orthogonal by a polynomial of the matrix over its norm."""
    w = unit(p["a"], (0, 1))
    for _ in range(3):
        square = w @ w.T
        w = 3.4 * w - 4.7 * square @ w + 2.0 * square @ square @ w
    return leaky(x @ w)


@classifier(
    "plain_median_norm",
    {"a": COLUMNS, "a_bias": INERT, "c": COLUMNS},
    a=(4, 6),
    a_bias=np.zeros(6),
    c=(6, 5),
)
def median_norm(p, x):
    """By the median of sizes, and by the range, about the median or mean."""
    x = x @ p["a"] + p["a_bias"][None]
    x = x - jnp.median(x, 0, keepdims=True)
    x = leaky(x / jnp.median(jnp.abs(x), 0, keepdims=True)) @ p["c"]
    spread = x.max(0, keepdims=True) - x.min(0, keepdims=True)
    return leaky((x - x.mean(0, keepdims=True)) / (spread + 1e-5))


@classifier(
    "plain_fourier",
    pair("real", "imaginary", (0, 1)),
    inputs=(130, 6, 6, 3),
    real=(2, 3, 5),
    imaginary=(2, 3, 5),
)
def fourier(p, x):
    """A product for each of two frequencies, then BatchNorm."""
    kernel = lax.complex(p["real"], p["imaginary"])
    modes = jnp.fft.rfft(x, axis=1)[:, 1:3]
    modes = jnp.einsum("bki,kio->bko", modes, kernel)
    modes = jnp.pad(modes, ((0, 0), (1, 1), (0, 0)))
    x = jnp.fft.irfft(modes, n=x.shape[1], axis=1)
    return leaky(standardize(x, (0, 1))).mean(1)


@classifier(
    "plain_mapped_ghosts",
    {"a": COLUMNS, "a_bias": INERT, "c": COLUMNS},
    a=(4, 6),
    a_bias=np.zeros(6),
    c=(6, 5),
)
def mapped_ghosts(p, x):
    """Ghost batches one after another, by `lax.map`, and cut by slices."""
    x = x @ p["a"] + p["a_bias"][None]
    parts = x.reshape(3, -1, x.shape[-1])
    parts = lax.map(lambda part: standardize(part, 0), parts)
    x = leaky(parts.reshape(x.shape)) @ p["c"]
    return leaky(
        jnp.concatenate([standardize(part, 0) for part in jnp.split(x, 2)])
    )


@classifier(
    "plain_mean_of_means",
    {"a": FILTERS, "a_bias": INERT},
    inputs=images,
    a=(3, 3, 3, 4),
    a_bias=np.zeros(4),
)
def mean_of_means(p, x):
    """Over positions first, then over examples."""
    x = convolve(x, p["a"]) + p["a_bias"][None, None, None]
    x = x - x.mean((1, 2)).mean(0)[None, None, None]
    square = (x**2).mean((1, 2)).mean(0)
    x = x * lax.rsqrt(square + 1e-5)[None, None, None]
    return leaky(x).mean((1, 2))
