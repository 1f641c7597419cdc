"""A network with BatchNorm whose Hessian is small enough to be dense."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from psi_optax import ScaleGroup
from psi_optax.landscape import hessian

GROUPS = {
    "a": {"kernel": ScaleGroup(0)},
    "b": {"kernel": ScaleGroup(0)},
    "bn": None,
    "head": None,
}
# 60 + 36 + 12 + 18 weights, 6 + 6 of which are lengths of filters.
SIZE, TANGENTS = 126, 114


class Net(NamedTuple):
    """Weights, and the arguments of the loss after them."""

    params: Any
    args: tuple[jax.Array, jax.Array]


def make_net(seed=0, dtype="float64"):
    keys = iter(jax.random.split(jax.random.key(seed), 6))

    def normal(*shape):
        return jax.random.normal(next(keys), shape, dtype)

    params = {
        "a": {"kernel": normal(10, 6) / 3},
        "b": {"kernel": normal(6, 6) / 2},
        "bn": {"scale": 1 + normal(6) / 10, "bias": jnp.zeros(6, dtype)},
        "head": {"kernel": normal(6, 3) / 2},
    }
    x = normal(24, 10)
    return Net(params, (x, jnp.arange(24) % 3))


def loss(params, x, y, epsilon=0.0):
    def normalized(z):
        z = z - z.mean(0, keepdims=True)
        return z * jax.lax.rsqrt((z * z).mean(0, keepdims=True) + epsilon)

    bn = params["bn"]
    z = normalized(x @ params["a"]["kernel"])
    z = jnp.tanh(z * bn["scale"][None] + bn["bias"][None])
    z = jnp.tanh(normalized(z @ params["b"]["kernel"]))
    logits = z @ params["head"]["kernel"]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    return losses.mean()


def rescaled(params, a, b=1.0):
    """Return the weights with rescaled filters."""
    return {
        **params,
        "a": {"kernel": params["a"]["kernel"] * a},
        "b": {"kernel": params["b"]["kernel"] * b},
    }


def dense(curvature, like):
    """Return the matrix of a curvature."""
    flat, unravel = ravel_pytree(like)
    rows = jax.jit(
        functools.partial(
            jax.lax.map, lambda e: ravel_pytree(curvature.matvec(unravel(e)))[0]
        )
    )
    return np.asarray(rows(jnp.eye(flat.size, dtype=flat.dtype)))


def plain(function, params):
    """Return the dense Hessian by jax.hessian, and the gradient."""
    flat, unravel = ravel_pytree(params)

    def of_flat(w):
        return function(unravel(w))

    return (
        np.asarray(jax.jit(jax.hessian(of_flat))(flat)),
        np.asarray(jax.jit(jax.grad(of_flat))(flat)),
    )


def radii_and_projection(params):
    """Return S, P and the directions of groups, from their definition."""
    flat, unravel = ravel_pytree(params)
    index = unravel(np.arange(flat.size))
    w = np.asarray(flat)
    radius, projection, directions = np.ones(w.size), np.eye(w.size), []
    for name in "ab":
        for filter_index in np.asarray(index[name]["kernel"]).astype(int).T:
            r = np.linalg.norm(w[filter_index])
            v = np.zeros(w.size)
            v[filter_index] = w[filter_index] / r
            radius[filter_index] = r
            projection -= np.outer(v, v)
            directions.append((filter_index, v))
    return radius, projection, directions


def of_matrix(matrix, dtype=None):
    """Return the curvature of a quadratic loss."""
    matrix = jnp.asarray(matrix, dtype)
    return hessian(lambda w: w @ matrix @ w / 2, jnp.zeros_like(matrix[0]))
