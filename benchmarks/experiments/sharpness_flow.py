r"""Weight decay at the edge of stability, on a loss of three weights.

The loss is \((u_3^2/2)(1 + 8 u_1^2)\) of the direction u. Its minima are a
circle, \(u_1 = \cos\varphi\), along which the sharpness of the sphere is
\(1 + 8 \cos^2\varphi\). Gradient descent with decay \(\lambda\) and rate
\(\eta\) follows the flow

\[d\varphi/d\tau = -2 \ell' / (4 + \ell'^2),\]

with \(\tau = \eta\lambda t\) and the logarithm \(\ell\) of the sharpness, up to
errors of first order in \(\eta\lambda\).
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from psi_optax import ScaleGroup
from psi_optax.landscape import eigenpairs, hessian, stability_threshold

RATE, START = 0.1, 0.35
_STEPS_PER_TIME = 2000  # of the midpoint rule, whose error is below 1e-6


def loss(w: jax.Array) -> jax.Array:
    """Return the loss of three weights."""
    u = w / jnp.linalg.norm(w)
    return u[2] ** 2 * (1 + 8 * u[0] ** 2) / 2


def sharpness_at(angle: float) -> float:
    """Return the sharpness of the sphere at a minimum."""
    return 1 + 8 * np.cos(angle) ** 2


def log_slope(angle: float) -> float:
    """Return the derivative of the logarithm of the sharpness."""
    return -16 * np.cos(angle) * np.sin(angle) / sharpness_at(angle)


def predict(times: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the sharpness of the flow at ascending times.

    Examples:
        >>> predict([0.0, 0.8]).round(3).tolist()
        [8.059, 6.075]
    """

    def slope(angle):
        return -2 * log_slope(angle) / (4 + log_slope(angle) ** 2)

    angle, found = START, []
    for span in np.diff(times, prepend=0.0):
        steps = max(1, round(span * _STEPS_PER_TIME))
        size = span / steps
        for _ in range(steps):
            angle += size * slope(angle + size / 2 * slope(angle))
        found.append(sharpness_at(angle))
    return np.array(found)


def start(height: float, norm: float) -> jax.Array:
    """Return weights of a norm, off the circle of minima by a height."""
    u = np.array([np.cos(START), np.sin(START), height])
    return jnp.array(norm * u / np.linalg.norm(u))


def run(
    tx: optax.GradientTransformation,
    w: jax.Array,
    steps: int,
    at: Sequence[int] | np.ndarray,
) -> np.ndarray:
    """Return the sharpness after some numbers of steps."""

    def step(carry: Any, _: Any) -> Any:
        w, state = carry
        updates, state = tx.update(jax.grad(loss)(w), state, w)
        w = optax.apply_updates(w, updates)
        return (w, state), w

    walk = jax.jit(functools.partial(jax.lax.scan, step, length=steps))
    _, path = walk((w, tx.init(w)), None)
    return np.asarray(jax.vmap(_top_eigenvalue)(path[np.asarray(at) - 1]))


def _top_eigenvalue(w: jax.Array) -> jax.Array:
    """Return the sharpness of the sphere at the minimum next to w."""
    curvature = hessian(loss, w.at[2].set(0), groups=ScaleGroup(0))
    return eigenpairs(curvature, jax.random.key(0), num_matvecs=2).values[0]


def run_with_decay(product: float, times: np.ndarray) -> np.ndarray:
    """Return the sharpness at times, under gradient descent with decay.

    In single precision the distance to the minima underflows: call it in
    double precision.

    Args:
        product: of learning rate and decay.
        times: numbers of steps times the product, ascending.
    """
    decay = optax.add_decayed_weights(product / RATE)
    # On the edge: the plain sharpness is that of the sphere over the square.
    norm = float(sharpness_at(START) / stability_threshold(RATE)) ** 0.5
    square = 2 * product / (4 + log_slope(START) ** 2)
    at = np.rint(times / product).astype(int)
    tx = optax.chain(decay, optax.sgd(RATE))
    return run(tx, start(np.sqrt(square), norm), at[-1], at)
