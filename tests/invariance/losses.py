"""Losses of one function of the weights, and what is found of them."""

import jax
import jax.numpy as jnp

from psi_optax import find_groups
from tests.invariance.programs import data


def shapes(**params):
    return {k: jax.ShapeDtypeStruct(v, jnp.float32) for k, v in params.items()}


def arrays(seed=1, **params):
    return {
        k: jnp.asarray(data(*v, seed=seed), "f4") for k, v in params.items()
    }


def unit(h, axis=-1):
    return h / jnp.linalg.norm(h, axis=axis, keepdims=True)


def normalized(h, axis=0, epsilon=0.0):
    center = jnp.mean(h, axis=axis, keepdims=True)
    return (h - center) / jnp.sqrt(jnp.var(h, axis, keepdims=True) + epsilon)


def total(y):
    """Return a sum to which each element contributes in its own way."""
    return jnp.sum(jnp.tanh(y) * data(*y.shape).astype(y.dtype))


def report_on(function, params, *args, method="analysis", **options):
    """Find the groups in the total of a function of params and args."""

    def loss(*args):
        return total(function(*args))

    return find_groups(loss, params, *args, method=method, **options)
