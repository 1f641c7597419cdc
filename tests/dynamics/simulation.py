"""Scale groups under isotropic noise: what the theory of equilibria assumes.

Every column of w is a group. Its gradient is noise, tangent, drawn anew at
each step, with |w| |g| = c exactly: that of a scale-invariant loss of which
nothing can be learned.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

Draw = Callable[..., jax.Array]


def signs(key, shape):
    """Noise of which every element has the same size."""
    return jax.random.rademacher(key, shape, jnp.float32)


class Run(NamedTuple):
    """Means over groups, a number a step."""

    norm: np.ndarray  # root of the mean square, before the step
    angle: np.ndarray  # arccos of the mean cosine, radians


def simulate(
    tx: optax.GradientTransformation,
    norm: float,
    steps: int,
    *,
    gradient_norm: float = 1.0,
    shape: tuple[int, int] = (256, 16),
    draw: Draw = jax.random.normal,
    lag: int = 1,
) -> Run:
    """Runs an optimizer on noise, from random weights of a given norm.

    Angles are those of as many steps together as the lag says; the first of
    them, as many again, mean nothing.
    """
    w = jax.random.normal(jax.random.key(0), shape)
    w = norm * w / _norms(w)[None]

    def body(carry, key):
        w, past, state = carry
        g = gradient_norm * tangent_noise(key, w, draw)
        updates, state = tx.update(g / _norms(w)[None], state, w)
        new = optax.apply_updates(w, updates)
        past = jnp.concatenate([past[1:], (w / _norms(w)[None])[None]])
        turned = new / _norms(new)[None]
        # 1 - cos = |v' - v|^2/2, which unlike the cosine loses no digits.
        gap = ((turned - past[0]) ** 2).sum() / 2 / shape[1]
        square = (w**2).sum() / shape[1]
        return (new, past, state), (square, gap)

    keys = jax.random.split(jax.random.key(1), steps)
    start = w, jnp.zeros((lag, *shape)), tx.init(w)
    run = jax.jit(lambda start: jax.lax.scan(body, start, keys)[1])
    square, gap = (np.asarray(x, np.float64) for x in run(start))
    return Run(np.sqrt(square), 2 * np.arcsin(np.sqrt(gap / 2)))


def rms(angles):
    """The root of the mean square."""
    return np.sqrt((angles**2).mean())


def tangent_noise(key, w, draw: Draw = jax.random.normal):
    """Noise of norm 1, orthogonal to each column of w."""
    z = draw(key, w.shape)
    z = z - w * ((w * z).sum(0) / (w * w).sum(0))[None]
    return z / _norms(z)[None]


def _norms(w):
    return jnp.sqrt((w * w).sum(0))
