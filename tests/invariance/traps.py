"""Instructions of random programs that a careless analysis gets wrong.

Each is a function of two arrays, a number, and the arrays that the program
closes over: gates and counters, which are zero when training begins.
"""

import jax
import jax.numpy as jnp
from jax import lax

from tests.invariance.programs import axis_of, fitted, indices, norm, wide


def closed_zero():
    """Return the arrays that programs close over, before training."""
    return {"gate": jnp.zeros(()), "count": jnp.zeros((), jnp.int32)}


def closed_later():
    """Return these arrays after some steps."""
    return {"gate": jnp.full((), 0.37), "count": jnp.full((), 411, jnp.int32)}


# -- refs -----------------------------------------------------------------


def stored(x, y, k, closed):
    ref = jax.new_ref(jnp.zeros_like(x))
    ref[...] = x
    if k % 3 == 1:
        ref[...] += fitted(y, x.shape)
    if k % 3 == 2:
        jax.ref.addupdate(ref, ..., x * x)
    return ref[...]


def stored_in_part(x, y, k, closed):
    ref = jax.new_ref(x if k % 2 else jnp.zeros_like(x))
    row = fitted(y, x.shape[1:]) if k // 2 % 2 else x[0] * 3.0
    if k // 4 % 3 == 0:
        ref[k // 12 % x.shape[0]] = row
    elif k // 4 % 3 == 1:
        ref[0:1] = row[None]
    else:
        ref[jnp.array([0])] = row[None]
    return ref[1:] if k // 12 % 2 and x.shape[0] > 1 else ref[...]


def penalized(x, y, k, closed):
    """A sum of squares that is accumulated beside the program."""
    total = jax.new_ref(jnp.zeros(()))

    def add(i, carry):
        total[...] += jnp.sum(x * x)
        return carry

    if k % 3 == 0:
        total[...] += jnp.sum(x * x)
    elif k % 3 == 1:
        lax.fori_loop(0, 2, add, 0)
    else:
        lax.scan(lambda c, _: (add(0, c), None), 0, None, length=2)
    return fitted(y, x.shape) + total[...]


def accumulated(x, y, k, closed):
    """A loop over rows, whose sum is in a ref."""
    x = wide(x)
    total = jax.new_ref(jnp.zeros(x.shape[1:]))

    def turn(carry, row):
        total[...] += row / norm(row, None) if k % 2 else row
        return carry, total[...] / norm(total[...], None)

    _, rows = lax.scan(turn, 0, x)
    return rows if k // 2 % 2 else total[...]


def written_in_a_branch(x, y, k, closed):
    ref = jax.new_ref(x)

    def write():
        ref[...] = x * 2.0 if k % 2 else fitted(y, x.shape)

    lax.cond(jnp.sum(indices(3, 5, k)) > 5, write, lambda: None)
    return ref[...]


def with_statistics(x, y, k, closed):
    """A running average that nobody reads: no trap, but a decoy."""
    ref = jax.new_ref(jnp.ones(x.shape[1:]))
    ref[...] = 0.9 * ref[...] + 0.1 * jnp.mean(x, axis=0)
    return x if k % 2 else x + ref[...][None]


# -- what is closed over --------------------------------------------------


def gated(x, y, k, closed):
    gate = (closed["gate"], closed["count"].astype(float) / 1000)[k % 2]
    other = fitted(y, x.shape)
    return x + gate * (other, other * other, jnp.tanh(other))[k // 2 % 3]


# -- custom derivatives ---------------------------------------------------


def with_derivative(function, pullback):
    """A function with the derivative that it is given."""
    wrapped = jax.custom_vjp(function)
    wrapped.defvjp(
        lambda *args: (function(*args), args),
        lambda args, g: pullback(g, *args),
    )
    return wrapped


STRAIGHT_THROUGH = [
    with_derivative(jnp.sign, lambda g, x: (g,)),
    with_derivative(lambda x: x / norm(x, 0), lambda g, x: (g,)),
]
DERIVATIVES = [
    with_derivative(lambda x: 2.0 * x, lambda g, x: (2.0 * g,)),
    with_derivative(lambda x: x, lambda g, x: (-g,)),
    with_derivative(lambda x: x, lambda g, x: (jnp.clip(g, -1e-3, 1e-3),)),
]
around = with_derivative(lambda x, y: x, lambda g, x, y: (g, g * x))


def straight_through(x, y, k, closed):
    return STRAIGHT_THROUGH[k % 2](x)


def own_derivative(x, y, k, closed):
    return DERIVATIVES[k % 3](x)


def gradient_elsewhere(x, y, k, closed):
    """The value does not depend on y, and the derivative does."""
    return around(x, fitted(y, x.shape))


def stopped(x, y, k, closed):
    size = (jnp.abs(x), norm(x, 0), norm(x, None))[k % 3]
    return x / lax.stop_gradient(size)


# -- scatters -------------------------------------------------------------


def scattered(x, y, k, closed):
    x = wide(x)
    rows = indices(2, x.shape[0], k)
    new = fitted(y, x.shape)[:2]
    at = x.at[rows[: len(new)]]
    return (at.set(new), at.add(new), at.max(new), at.multiply(2.0))[k % 4]


def summed_by_segment(x, y, k, closed):
    x = wide(x)
    sums = jax.ops.segment_sum(x, indices(x.shape[0], 3, k), 3)
    return sums - jnp.mean(sums, axis=0, keepdims=True) if k % 2 else sums


# -- guards ---------------------------------------------------------------


def guarded(x, y, k, closed):
    size = norm(x, (axis_of(x, k), None)[k // 4 % 2])
    one = jnp.ones_like(size)
    size = (
        jnp.where(size == 0, one, size),
        jnp.where(size > 0, size, one),
        jnp.maximum(size, 1e-5),
        jnp.where(size > 1, size, one),
        jnp.maximum(size, one),
    )[k // 8 % 5]
    return x / size


def bounded(x, y, k, closed):
    return (jnp.clip(x, -1e4, 1e4), jnp.nan_to_num(x), jnp.clip(x, -1, 1))[
        k % 3
    ]


TRAPS = [
    stored,
    stored_in_part,
    penalized,
    accumulated,
    written_in_a_branch,
    with_statistics,
    gated,
    straight_through,
    own_derivative,
    gradient_elsewhere,
    stopped,
    scattered,
    summed_by_segment,
    guarded,
    bounded,
]
