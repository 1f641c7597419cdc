r"""Equilibria of weight decay and noise: one law for each optimizer.

Under isotropic noise every weight is a stationary process in time. Its
autocorrelation at lag one is the cosine of the rotation per step, and its
variance gives the squared norm. With momentum the process is autoregressive of
second order,

\[w_{t+1} = f_1 w_t + f_2 w_{t-1} + \text{noise}, \qquad
  \cos = \frac{f_1}{1 - f_2}, \qquad
  |w|^2 = \frac{\sigma^2 (1 - f_2)}
               {(1 + f_2)\,((1 - f_2)^2 - f_1^2)},\]

with \(\sigma\) the norm of the noise per step. The formulas here use
\(1 - f_1 - f_2\), which is small and free of cancellation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from psi_optax._validation import (
    check_choice,
    check_decay,
    check_nonnegative,
    check_positive,
)

# Each optimizer, with its default momentum; None if it has no momentum.
OPTIMIZERS = {"sgd": 0.0, "sgdw": 0.0, "adamw": 0.9, "lion": 0.9, "psi": None}


class DecayedOptimizer(NamedTuple):
    """Optimizer with weight decay, after validation of its arguments.

    Attributes:
        name: a key of `OPTIMIZERS`.
        learning_rate: of any shape.
        weight_decay: multiplied by the learning rate.
        momentum: b1 for AdamW and Lion.
        b2: Lion's second decay.
    """

    name: str
    learning_rate: jax.Array
    weight_decay: float
    momentum: float
    b2: float

    @property
    def product(self) -> jax.Array:
        """Learning rate times weight decay."""
        return self.learning_rate * self.weight_decay


class Equilibrium(NamedTuple):
    """Stationary state of an optimizer under noise.

    Attributes:
        cosine_gap: 1 minus the cosine of the rotation per step.
        noise_gain: squared norm of the weights, divided by the squared norm of
            the noise per step.
    """

    cosine_gap: jax.Array
    noise_gain: jax.Array


def make_decayed_optimizer(
    learning_rate: ArrayLike,
    weight_decay: float,
    optimizer: str,
    momentum: float | None,
    b2: float | None,
) -> DecayedOptimizer:
    """Check the arguments of an optimizer, and fill in its defaults.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an unknown optimizer; a negative learning rate (zero is
            valid: schedules begin and end there); a weight decay that is not
            positive; a product of the two of 1 or more; a momentum or b2 that
            has no effect on the optimizer, or is not in [0, 1).
    """
    check_choice("optimizer", optimizer, OPTIMIZERS)
    check_nonnegative("learning_rate", learning_rate, arrays=True)
    check_positive("weight_decay", weight_decay, arrays=True)
    if optimizer == "psi" and momentum is not None:
        raise ValueError(
            f"momentum={momentum!r}: the law of optimizer='psi' is known"
            " without momentum only: omit momentum."
        )
    if optimizer != "lion" and b2 is not None:
        raise ValueError(
            f"b2={b2!r} has no effect on optimizer={optimizer!r}: omit b2."
        )
    _check_product(optimizer, learning_rate, weight_decay)
    default = OPTIMIZERS[optimizer] or 0.0
    momentum = default if momentum is None else momentum
    b2 = 0.99 if b2 is None else b2
    check_decay("momentum", momentum)
    check_decay("b2", b2)
    rate = jnp.asarray(learning_rate)
    return DecayedOptimizer(optimizer, rate, weight_decay, momentum, b2)


def _check_product(
    optimizer: str, learning_rate: ArrayLike, weight_decay: float
) -> None:
    """Require a product below 1, if the optimizer shrinks weights by it."""
    if optimizer == "psi" or isinstance(learning_rate, jax.core.Tracer):
        return
    product = np.max(np.asarray(learning_rate) * weight_decay)
    if product >= 1:
        raise ValueError(
            f"learning_rate * weight_decay = {product:.3g} is not below 1:"
            " reduce weight_decay. It is multiplied by the learning rate, as in"
            " optax."
        )


def solve_equilibrium(
    decayed: DecayedOptimizer, gradient_norm: ArrayLike | None = None
) -> Equilibrium:
    """Return the equilibrium of an optimizer under noise.

    Args:
        decayed: the optimizer.
        gradient_norm: needed for "psi" alone; see `equilibrium_norm`.

    Raises:
        ValueError: "psi" without a gradient norm.
    """
    x, mu = decayed.product, decayed.momentum
    if decayed.name == "lion":
        return _lion(x, mu, decayed.b2)
    if decayed.name == "psi":
        noise = require_gradient_norm(decayed, gradient_norm)
        return _psi(decayed.learning_rate * noise)
    if decayed.name == "sgd":
        return _autoregressive(jnp.full_like(x, -mu), x)
    return _autoregressive(-(1 - x) * mu, x * (1 - mu))


def require_gradient_norm(
    decayed: DecayedOptimizer, gradient_norm: ArrayLike | None
) -> jax.Array:
    """Return the gradient norm as an array.

    Raises:
        ValueError: it is None or not positive.
    """
    if gradient_norm is None:
        raise ValueError(
            f"optimizer={decayed.name!r} needs gradient_norm: pass the RMS of"
            " |w| |g| over steps."
        )
    check_positive("gradient_norm", gradient_norm, arrays=True)
    return jnp.asarray(gradient_norm)


def _autoregressive(f2: jax.Array, deficit: jax.Array) -> Equilibrium:
    """Return the equilibrium of order two, for the deficit 1 - f1 - f2."""
    rest = 1 - f2
    gain = rest / ((1 + f2) * deficit * (2 * rest - deficit))
    return Equilibrium(deficit / rest, gain)


def _lion(x: jax.Array, b1: float, b2: float) -> Equilibrium:
    r"""Return the equilibrium of decayed sums of signs.

    With a = 1 - x, P is the sum over k of \(a^{k-1} R_k\). The autocorrelation
    of the signs is \(R_k = \frac{2}{\pi} \arcsin \rho_k\), by the arcsine law.
    The autocorrelation \(\rho_k\) of their arguments is geometric.
    """
    fresh = (1 - b1) ** 2
    buffer = b1**2 * (1 - b2) / (1 + b2)
    first = (b1 * (1 - b1) * (1 - b2) + b2 * buffer) / (fresh + buffer)
    # Later terms are below the precision of a double.
    terms = 1 + int(np.ceil(np.log(1e-17) / np.log(b2))) if b2 else 1
    lags = np.arange(terms)
    signs = jnp.asarray(2 / np.pi * np.arcsin(first * b2**lags), x.dtype)
    powers = jnp.exp(
        jnp.multiply.outer(jnp.log1p(-x), jnp.asarray(lags, x.dtype))
    )
    p = jnp.tensordot(powers, signs, 1, precision="highest")
    total = 1 + 2 * (1 - x) * p
    return Equilibrium(x * (1 - x * p) / total, total / (x * (2 - x)))


def _psi(sine: jax.Array) -> Equilibrium:
    """Return the equilibrium for noise in proportion to the norm.

    The sine of the rotation is then known, independent of the norm.
    """
    square = sine * sine
    return Equilibrium(square / (1 + jnp.sqrt(1 - square)), 1 / square)
