"""Learning rates at which optimizers lose stability, by bisection."""

import functools

import jax
import jax.numpy as jnp
import optax

SPECTRUM = (1.0, 2.0, 3.5, 5.0)
NORM = 3.0
SHARPNESS = SPECTRUM[-1] - SPECTRUM[0]
"""Of the sphere, at the minimum; the plain one is less by the squared norm."""


def loss(w):
    """Return a loss that has no scale, least at the first axis."""
    return jnp.sum(jnp.array(SPECTRUM) * w * w) / (2 * jnp.sum(w * w))


def measured(make, low, high, start=1e-11, halvings=12):
    """Return the rate above which a small step off the minimum grows.

    Args:
        make: returns an optimizer of a learning rate.
        low: a stable rate.
        high: an unstable rate.
        start: the first distance from the minimum, relative.
        halvings: of the interval.
    """
    grows = jax.jit(functools.partial(_grows, make, start))
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (low, middle) if grows(middle) else (middle, high)
    return (low + high) / 2


def _grows(make, start, rate):
    w = NORM * jnp.array([1.0, start, start, start])
    tx = make(rate)

    def step(carry, _):
        w, state = carry
        updates, state = tx.update(jax.grad(loss)(w), state, w)
        w = optax.apply_updates(w, updates)
        return (w, state), jnp.linalg.norm(w[1:]) / jnp.linalg.norm(w)

    _, distances = jax.lax.scan(step, (w, tx.init(w)), None, length=400)
    return (distances.max() > 1e-5) | (distances[-1] > distances[200])
