r"""What weight decay and noise settle at, one law an optimizer.

Under isotropic noise every weight is a stationary process in time. The cosine
of the angle between weights and next weights is its autocorrelation at lag
one, and the squared norm its variance. With a momentum the process is
autoregressive of second order,

\[w_{t+1} = f_1 w_t + f_2 w_{t-1} + \text{noise}, \qquad
  \cos = \frac{f_1}{1 - f_2}, \qquad
  |w|^2 = \frac{\sigma^2 (1 - f_2)}
               {(1 + f_2)\,((1 - f_2)^2 - f_1^2)},\]

\(\sigma\) the norm of the noise a step. All is written in terms of
\(1 - f_1 - f_2\), which is small and known without cancellation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax._validation import (
    check_choice,
    check_decay,
    check_nonnegative,
    check_positive,
)

# Each optimizer, with the momentum that it has where none is given.
OPTIMIZERS = {"sgd": 0.0, "sgdw": 0.0, "adamw": 0.9, "lion": 0.9, "psi": None}

Number = jax.typing.ArrayLike


class Decay(NamedTuple):
    """An optimizer with weight decay, its arguments checked."""

    optimizer: str
    learning_rate: jax.Array
    weight_decay: float
    momentum: float
    b2: float

    @property
    def product(self) -> jax.Array:
        """Learning rate times weight decay."""
        return self.learning_rate * self.weight_decay


class Balance(NamedTuple):
    """What an optimizer settles at."""

    gap: jax.Array  # 1 minus the cosine of the rotation
    gain: jax.Array  # the squared norm over the squared norm of a step's noise


def make_decay(
    learning_rate: Number,
    weight_decay: float,
    optimizer: str,
    momentum: float | None,
    b2: float | None,
) -> Decay:
    """Checks the arguments, and fills in the usual ones.

    Raises:
        ValueError: an unknown optimizer; a negative learning rate (zero is
            what schedules begin and end with); a weight decay that is not
            positive; a product of the two of 1 or more; a momentum or b2 that
            the optimizer does not have, or outside of [0, 1).
    """
    check_choice("optimizer", optimizer, OPTIMIZERS)
    check_nonnegative("learning_rate", learning_rate, arrays=True)
    check_positive("weight_decay", weight_decay, arrays=True)
    if optimizer == "psi" and momentum is not None:
        raise ValueError(f"momentum={momentum!r}: no law is known for psi.")
    if optimizer != "lion" and b2 is not None:
        raise ValueError(f"b2={b2!r} has no effect on {optimizer}: leave it.")
    _check_product(optimizer, learning_rate, weight_decay)
    usual = OPTIMIZERS[optimizer] or 0.0
    momentum = usual if momentum is None else momentum
    b2 = 0.99 if b2 is None else b2
    check_decay("momentum", momentum)
    check_decay("b2", b2)
    rate = jnp.asarray(learning_rate)
    return Decay(optimizer, rate, weight_decay, momentum, b2)


def _check_product(optimizer: str, rate: Number, weight_decay: float) -> None:
    if optimizer == "psi" or isinstance(rate, jax.core.Tracer):
        return
    product = np.max(np.asarray(rate) * weight_decay)
    if product >= 1:
        raise ValueError(
            f"learning_rate * weight_decay = {product:.3g} is not below 1: the"
            " decay is multiplied by the rate here, as optax does."
        )


def balance(decay: Decay, gradient_norm: Number | None = None) -> Balance:
    """The law of an optimizer; only that of psi needs the gradient's norm.

    Raises:
        ValueError: psi without a gradient norm.
    """
    x, mu = decay.product, decay.momentum
    if decay.optimizer == "lion":
        return _lion(x, mu, decay.b2)
    if decay.optimizer == "psi":
        return _psi(decay.learning_rate * need(decay, gradient_norm))
    if decay.optimizer == "sgd":
        return _autoregressive(jnp.full_like(x, -mu), x)
    return _autoregressive(-(1 - x) * mu, x * (1 - mu))


def need(decay: Decay, gradient_norm: Number | None) -> jax.Array:
    """The norm of the gradient, where there is no result without it."""
    if gradient_norm is None:
        raise ValueError(
            f"optimizer={decay.optimizer!r} settles at what its gradients say:"
            " give gradient_norm, the RMS of |w| |g| over steps."
        )
    check_positive("gradient_norm", gradient_norm, arrays=True)
    return jnp.asarray(gradient_norm)


def _autoregressive(f2: jax.Array, deficit: jax.Array) -> Balance:
    """Second order, with the deficit 1 - f1 - f2."""
    rest = 1 - f2
    gain = rest / ((1 + f2) * deficit * (2 * rest - deficit))
    return Balance(deficit / rest, gain)


def _lion(x: jax.Array, b1: float, b2: float) -> Balance:
    """Decayed sums of signs, with P the sum over k of a^(k-1) R_k, a = 1 - x.

    R_k, the autocorrelation of the signs, is (2/pi) arcsin rho_k by the
    arcsine law, and rho_k, that of what the signs are taken of, is geometric.
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
    return Balance(x * (1 - x * p) / total, total / (x * (2 - x)))


def _psi(sine: jax.Array) -> Balance:
    """Noise in proportion to the norm: the sine is known, the norm is not."""
    square = sine * sine
    return Balance(square / (1 + jnp.sqrt(1 - square)), 1 / square)
