"""One step of a transform, and comparisons of trees."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from tests.registry import draw


def one_step(tx, params=None, gradient=None, **extra_args):
    """The updates and the state after a first step."""
    params = draw(0) if params is None else params
    gradient = draw(1) if gradient is None else gradient
    return tx.update(gradient, tx.init(params), params, **extra_args)


def abstract_step(tx, dtype="float32", params=None):
    """Parameters and states before a step, updates and states after: shapes."""
    params = jax.eval_shape(lambda: params or draw(0, dtype))
    state = jax.eval_shape(tx.init, params)
    return params, state, *jax.eval_shape(tx.update, params, state, params)


def dtypes(tree):
    return jax.tree.map(lambda x: x.dtype, tree)


def assert_dtypes_kept(tx, dtype="float32", params=None):
    params, state, updates, new_state = abstract_step(tx, dtype, params)
    assert dtypes(updates) == dtypes(params)
    assert dtypes(new_state) == dtypes(state)


assert_equal = chex.assert_trees_all_equal


def assert_close(a, b):
    """Equal up to rounding.

    The numbers drawn are less than 4 and the steps and weights that are made of
    them less than 16. Fused multiplications and additions round once for twice,
    and sums of 24 terms in another order differ by some roundings more: 8
    epsilons, each of them of the largest number.
    """
    assert jax.tree.structure(a) == jax.tree.structure(b)

    def close(x, y):
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        eps = jnp.finfo(x.dtype).eps if floating else 0
        np.testing.assert_allclose(x, y, rtol=0, atol=8 * 16 * eps)

    jax.tree.map(close, a, b)


def assert_differ(a, b):
    """Far apart in some leaf: a hundred times what `assert_close` lets pass."""
    gaps = jax.tree.map(lambda x, y: np.max(np.abs(x - y)), a, b)
    assert max(jax.tree.leaves(gaps)) > 2e-3
