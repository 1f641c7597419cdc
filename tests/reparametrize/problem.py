"""Kernels of one small problem, and sums over their filters."""

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax import ScaleGroup
from psi_optax.groups import make_plan

FILTERS = ScaleGroup((0, 1, 2))
COLUMNS = ScaleGroup(0)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.RandomState(seed).normal(size=shape))


def rows(kernel):
    """Return filters, the last axis of a kernel, as rows."""
    return np.asarray(kernel).reshape(-1, kernel.shape[-1]).T


def gradient(function, kernel):
    """Return the gradient of a linear loss of a function of the kernel."""
    cotangent = draw(*kernel.shape, seed=7)
    return jax.grad(lambda k: jnp.vdot(function(k), cotangent))(kernel)


def along(kernel, vectors):
    """Return the inner product of each filter with its vector."""
    return np.sum(rows(kernel) * rows(vectors), axis=1)


def plan_of(kernel, group=FILTERS):
    return make_plan(group, kernel)
