"""Networks whose weights are functions of raw weights, and ones much alike."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from psi_optax import normalize
from psi_optax.reparametrize import (
    centered,
    orthogonal,
    spectral,
    standardized,
    unit,
)

from .plain import COLUMNS, MATRIX, classifier

A = {"a": COLUMNS}


def layer(function):
    """Return a layer whose kernel is a function of a raw kernel."""

    def features(p, x):
        return jax.nn.relu(x @ function(p["a"]))

    return features


def reparametrized(name, expected, function, shape=(4, 3)):
    """Register a network whose kernel is a function of a raw kernel."""
    classifier(name, expected, a=shape)(layer(function))


COLUMNWISE = {
    "unit": unit,
    "normalize": normalize,
    "centered": centered,
    "standardized": standardized,
    "scaled_standardized": partial(standardized, gain=1.7, ddof=1),
    "gram_schmidt": partial(orthogonal, method="qr"),
}
WHOLE = {
    "polar": orthogonal,
    "polar_with_means": partial(orthogonal, centered=False),
    "polar_by_svd": partial(orthogonal, method="svd"),
    "spectral": partial(spectral, steps=30),
}
for _names, _group in ((COLUMNWISE, COLUMNS), (WHOLE, MATRIX)):
    for _name, _function in _names.items():
        reparametrized(
            f"plain_reparametrized_{_name}",
            {"a": _group},
            partial(_function, groups=COLUMNS),
        )


@classifier("plain_learned_gains", A, a=(4, 6), gain=np.ones(6))
def learned_gains(p, x):
    """Without a normalization layer the gain of weight normalization counts."""
    return jax.nn.relu(x @ unit(p["a"], COLUMNS, {"": p["gain"]}))


@classifier("plain_learned_centered_gains", A, a=(4, 6), gain=np.ones(6))
def learned_centered_gains(p, x):
    return jax.nn.relu(x @ centered(p["a"], COLUMNS, {"": p["gain"]}))


# Decompositions of raw kernels, whose results scale or do not.


def by_eigenvectors(a):
    values, vectors = jnp.linalg.eigh(a.T @ a)
    return a @ (vectors / jnp.sqrt(values)[None]) @ vectors.T


def by_svd(a):
    u, _, v = jnp.linalg.svd(a, full_matrices=False)
    return u @ v


def by_triangle(a):
    triangle = jnp.linalg.cholesky(a.T @ a)
    return solve_triangular(triangle, a.T, lower=True).T


for _function in (by_eigenvectors, by_svd):
    reparametrized(f"plain_raw_{_function.__name__}", {"a": MATRIX}, _function)
reparametrized("plain_raw_by_triangle", A, by_triangle)


def singular_values(a):
    return jnp.linalg.svd(a, compute_uv=False)


SCALED = {
    "eigenvalues": lambda a: jnp.linalg.eigh(a.T @ a)[0],
    "diagonal": lambda a: jnp.diagonal(jnp.linalg.cholesky(a.T @ a)),
    "triangle": lambda a: jnp.linalg.qr(a)[1][0],
    "sines": lambda a: jnp.sin(singular_values(a)),
}


def weighted(values):
    """Return units that are weighted by numbers made of the raw kernel."""

    def features(p, x):
        return jax.nn.relu(x @ unit(p["a"], COLUMNS)) * values(p["a"])[None]

    return features


for _name, _values in SCALED.items():
    classifier(f"plain_scaled_{_name}", a=(4, 3))(weighted(_values))


@classifier("plain_singular_shares", {"a": MATRIX}, a=(4, 3))
def singular_shares(p, x):
    values = singular_values(p["a"])
    units = jax.nn.relu(x @ unit(p["a"], COLUMNS))
    return units * (values / values.sum())[None]


@classifier("plain_iteration_of_raw_kernels", a=0.3 * np.eye(4, 3) + 0.1)
def iteration_of_raw_kernels(p, x):
    """Three steps of Newton-Schulz without a normalization in front."""
    a = p["a"]
    for _ in range(3):
        a = 1.5 * a - 0.5 * a @ (a.T @ a)
    return jax.nn.relu(x @ a)
