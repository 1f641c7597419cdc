"""A small network whose hidden columns are scale groups, with its labels.

For runs whose gradient is taken at other weights than the step begins at.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from psi_optax import ScaleGroup
from tests.compilation import quick_jit

GROUPS = {"kernel": ScaleGroup(0), "head": None}
FACTORS = np.array([0.25, 0.5, 1, 2, 4, 16.0])


def make_params():
    """A kernel of six columns, and a head; in double precision with x64."""
    return {
        "kernel": jax.random.normal(jax.random.key(0), (8, 6)),
        "head": jax.random.normal(jax.random.key(1), (6, 3)),
    }


def times(factor, params):
    """The params with columns multiplied by a number, or one for each."""
    kernel = params["kernel"]
    factors = np.broadcast_to(factor, kernel.shape)
    return {**params, "kernel": kernel * factors.astype(kernel.dtype)}


def loss(params, i=0):
    """The same for every i, the number of an inner step."""
    del i
    x = jax.random.normal(jax.random.key(5), (24, 8))
    x = x.astype(params["kernel"].dtype)
    h = x @ params["kernel"]
    h = jnp.tanh((h - h.mean(0, keepdims=True)) / h.std(0, keepdims=True))
    labels = jnp.arange(24) % 3
    return optax.losses.softmax_cross_entropy_with_integer_labels(
        h @ params["head"], labels
    ).mean()


grad_fn = jax.grad(loss)


def train(tx, params, steps=30):
    """The losses before each step, the last params and the last state."""
    tx = optax.with_extra_args_support(tx)

    @quick_jit
    def step(params, state):
        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = tx.update(gradient, state, params, grad_fn=grad_fn)
        return value, optax.apply_updates(params, updates), state

    state, losses = tx.init(params), []
    for _ in range(steps):
        value, params, state = step(params, state)
        losses.append(value)
    return np.array(losses), params, state


def distance(a, b):
    """The largest difference of two trees."""
    gaps = jax.tree.map(lambda x, y: float(np.abs(x - y).max()), a, b)
    return max(jax.tree.leaves(gaps))
