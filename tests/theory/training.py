"""Steps, and training that keeps every one of them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.compilation import quick_jit


def _gradient(loss, params, batch):
    return jax.grad(loss)(params, batch)


def _step(tx, gradient, state, params):
    updates, state = tx.update(gradient, state, params)
    return optax.apply_updates(params, updates), state


def _first_update(tx, updates, params):
    return tx.update(updates, tx.init(params), params)[0]


# Compiled once for each loss or transform, as long as it is one object.
_QUICK = (
    quick_jit(_gradient, static_argnames="loss"),
    quick_jit(_step, static_argnames="tx"),
)
_AS_USERS_COMPILE = (
    jax.jit(_gradient, static_argnames="loss"),
    jax.jit(_step, static_argnames="tx"),
)
_quick_first_update = quick_jit(_first_update, static_argnames="tx")


def gradient_of(loss, params, batch):
    """The gradient, as numpy arrays."""
    return to_numpy(_QUICK[0](loss, params, batch))


def step(tx, gradient, state, params):
    """Weights and state after one step, as numpy arrays."""
    return to_numpy(_QUICK[1](tx, gradient, state, params))


def first_update(tx, updates, params):
    """What a transform makes of its first updates, as numpy arrays."""
    return to_numpy(_quick_first_update(tx, updates, params))


def walk(tx, params, gradients, state=None, move=_step):
    """Weights after each step along given gradients, and the last state."""
    state, path = tx.init(params) if state is None else state, []
    for gradient in gradients:
        params, state = move(tx, gradient, state, params)
        path.append(params)
    return path, state


def scan(tx, slope, params, inputs=None, length=None, state=None):
    """Weights and state after steps along slope(params, input)."""

    def body(carry, x):
        params, state = carry
        return _step(tx, slope(params, x), state, params), None

    carry = params, tx.init(params) if state is None else state
    return jax.lax.scan(body, carry, inputs, length)[0]


def to_numpy(tree):
    """For what follows: on jax arrays each new operation is compiled."""
    return jax.tree.map(np.asarray, tree)


def train(tx, problem, params=None, *, optimized=False):
    """Runs an optimizer over a problem's batches.

    Gradient and step are compiled apart, so that optimizers share the gradient.
    Two runs of one `tx` and one `problem` run the same two executables.

    Args:
        tx: the optimizer.
        problem: see `tests.theory.networks`.
        params: where to start, if not from `problem.params`.
        optimized: whether the compiler takes its time, as it does for users.

    Returns:
        The path, which is params with a first axis for time, after each step;
        and the last state.
    """
    slope, move = _AS_USERS_COMPILE if optimized else _QUICK
    params = problem.params if params is None else params
    params = jax.tree.map(jnp.asarray, params)
    state = tx.init(params)
    path = []
    for time in range(len(jax.tree.leaves(problem.batches)[0])):
        batch = jax.tree.map(lambda x, t=time: x[t], problem.batches)
        gradient = slope(problem.loss, params, batch)
        params, state = move(tx, gradient, state, params)
        path.append(params)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *path), state


def path_of(tx, problem, params=None, *, optimized=False):
    """The path of `train` alone."""
    return train(tx, problem, params, optimized=optimized)[0]


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
