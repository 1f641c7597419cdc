"""A cart-pole, as a library of environments has it."""

import jax
import jax.numpy as jnp


def reset(key):
    """Return a cart near its place, with its pole near the upright."""
    return jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)


def step(key, state, action):
    """Push the cart for 0.02 s; return the state and whether the pole fell."""
    _, speed, angle, spin = state
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    push = (20.0 * action - 10 + 0.05 * spin**2 * sin) / 1.1
    turn = (9.8 * sin - cos * push) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
    slide = push - 0.05 * turn * cos / 1.1
    state = state + 0.02 * jnp.stack([speed, slide, spin, turn])
    fell = (jnp.abs(state[0]) > 2.4) | (jnp.abs(state[2]) > 0.21)
    return jnp.where(fell, reset(key), state), fell
