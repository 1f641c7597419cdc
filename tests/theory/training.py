"""Steps, and training that keeps every one of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax


@functools.partial(jax.jit, static_argnames="loss")
def gradient_of(loss, params, batch):
    """The gradient, compiled once for each loss."""
    return jax.grad(loss)(params, batch)


@functools.partial(jax.jit, static_argnames="tx")
def first_update(tx, updates, params):
    """What a transform makes of its first updates."""
    return tx.update(updates, tx.init(params), params)[0]


@functools.partial(jax.jit, static_argnames="tx")
def step(tx, gradient, state, params):
    """The weights and the state after one step."""
    updates, state = tx.update(gradient, state, params)
    return optax.apply_updates(params, updates), state


def train(tx, problem, params=None):
    """Runs an optimizer over a problem's batches.

    Gradient and step are compiled apart, so that optimizers share the gradient.
    Two runs of one `tx` and one `problem` run the same two executables.

    Args:
        tx: the optimizer.
        problem: see `tests.theory.networks`.
        params: where to start, if not from `problem.params`.

    Returns:
        The path, which is params with a first axis for time, after each step;
        and the last state.
    """
    params = problem.params if params is None else params
    params = jax.tree.map(jnp.asarray, params)
    state = tx.init(params)
    path = []
    for time in range(len(jax.tree.leaves(problem.batches)[0])):
        batch = jax.tree.map(lambda x, t=time: x[t], problem.batches)
        gradient = gradient_of(problem.loss, params, batch)
        params, state = step(tx, gradient, state, params)
        path.append(params)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *path), state


def path_of(tx, problem, params=None):
    """The path of `train` alone."""
    return train(tx, problem, params)[0]


def lenient(tx):
    """The transform under JAX's standard promotion of dtypes.

    The tests run under the strict one, which optax's own Adam does not bear:
    its bias correction raises a float to an integer count.
    """
    tx = optax.with_extra_args_support(tx)

    def update_fn(updates, state, params=None, **extra_args):
        with jax.numpy_dtype_promotion("standard"):
            return tx.update(updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(tx.init, update_fn)
