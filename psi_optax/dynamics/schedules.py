r"""Schedules and weight decay as one quantity: the learning rate of directions.

For scale-invariant weights, SGD with weight decay is exactly a step of the
direction with the *directional rate* \(\Phi_t = \eta_t/(a_t r_t^2)\), where
\(a_t = 1 - \eta_t\lambda_t\):

\[v_{t+1} \propto v_t - \Phi_t\,\bar g_t, \qquad
  \Phi_{t+1} = \frac{B_t\,\Phi_t}{1 + \Phi_t^2\,|\bar g_t|^2}, \qquad
  B_t = \frac{\eta_{t+1}}{\eta_t\,a_t\,a_{t+1}}.\]

The schedule and the decay multiply it by the drive B. Gradients, noise
included, decrease it.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from psi_optax._validation import check_decay, check_period, check_positive


def directional_rate(
    learning_rate: ArrayLike, norm: ArrayLike, weight_decay: ArrayLike = 0.0
) -> jax.Array:
    r"""Return the learning rate of the direction under SGD, \(\eta/(a\,r^2)\).

    A step rotates the direction by the arctangent of this rate times the norm
    of the gradient in direction space.

    Args:
        learning_rate: of SGD with weight decay: \(w - \eta(g + \lambda w)\).
        norm: r, of the weights before the step.
        weight_decay: multiplied by the learning rate.

    Returns:
        The directional rate, of the shape of the arguments.

    Raises:
        ValueError: arguments of different dtypes, if promotion is strict.

    Examples:
        >>> print(directional_rate(0.1, 2.0))
        0.025

    References:
        Amin, Chang and Khanna, *When does scale-invariant optimization become
        unstable? An exact schedule law with weight decay*, 2026.
    """
    rate, norm = jnp.asarray(learning_rate), jnp.asarray(norm)
    return rate / ((1 - rate * weight_decay) * norm * norm)


def next_directional_rate(
    rate: ArrayLike,
    learning_rate: ArrayLike,
    next_learning_rate: ArrayLike,
    weight_decay: ArrayLike,
    gradient_norm: ArrayLike,
    next_weight_decay: ArrayLike | None = None,
) -> jax.Array:
    r"""Return the directional rate after a step of SGD: the schedule law.

    It is exact: \(B\,\Phi/(1 + \Phi^2 c^2)\) with
    \(B = \eta'/(\eta\,(1-\eta\lambda)(1-\eta'\lambda'))\).

    Args:
        rate: the directional rate \(\Phi\) of this step.
        learning_rate: \(\eta\) of this step.
        next_learning_rate: \(\eta'\) of the next step.
        weight_decay: \(\lambda\) of this step.
        gradient_norm: \(c = |w|\,|g|\) at this step.
        next_weight_decay: \(\lambda'\) of the next step; None for the same.

    Returns:
        The directional rate of the next step.

    Raises:
        ValueError: arguments of different dtypes, if promotion is strict.

    Examples:
        >>> rate = directional_rate(0.1, 2.0)
        >>> print(next_directional_rate(rate, 0.1, 0.05, 0.0, 1.0).round(5))
        0.01249

    References:
        Amin, Chang and Khanna, *When does scale-invariant optimization become
        unstable? An exact schedule law with weight decay*, 2026.
    """
    phi, c = jnp.asarray(rate), jnp.asarray(gradient_norm)
    eta, after = jnp.asarray(learning_rate), jnp.asarray(next_learning_rate)
    decay_after = (
        weight_decay if next_weight_decay is None else next_weight_decay
    )
    shrunk = (1 - eta * weight_decay) * (1 - after * decay_after)
    drive = after / (eta * shrunk)
    return drive * phi / (1 + phi * phi * c * c)


def balanced_schedule(
    learning_rate: float, weight_decay: float, steps: int, balance: float = 1.0
) -> optax.Schedule:
    r"""Return the schedule with a constant drive B of the schedule law.

    \(\eta_{t+1} = B\,s/(1 + \lambda B s)\) with
    \(s = \eta_t(1 - \lambda\eta_t)\). At B = 1 decay and schedule cancel: the
    directional rate decreases by gradients alone, as it does without both. A
    constant learning rate has \(B = (1-\eta\lambda)^{-2}\).

    Args:
        learning_rate: of the first step.
        weight_decay: of the optimizer, multiplied by the learning rate.
        steps: number of steps; the learning rate is constant afterwards.
        balance: B.

    Returns:
        A schedule.

    Raises:
        TypeError: a learning rate, steps or balance that is not a number.
        ValueError: a learning rate, steps or balance that is not positive;
            steps that are not a whole number; a learning rate of
            1/weight_decay or more.

    Examples:
        >>> schedule = balanced_schedule(0.1, 0.05, steps=1000)
        >>> print(f"{schedule(0):.3f} {schedule(100):.3f}")
        0.100 0.050

    References:
        Amin, Chang and Khanna, *When does scale-invariant optimization become
        unstable? An exact schedule law with weight decay*, 2026.
    """
    check_positive("learning_rate", learning_rate)
    check_period("steps", steps)
    check_positive("balance", balance)
    if not 0 <= learning_rate * weight_decay < 1:
        raise ValueError(
            f"weight_decay={weight_decay!r} times learning_rate="
            f"{learning_rate!r} is not in [0, 1): reduce the weight decay, and"
            " keep it nonnegative."
        )
    rates = np.empty(steps)
    rates[0] = learning_rate
    for step in range(1, steps):
        before = rates[step - 1]
        driven = balance * before * (1 - weight_decay * before)
        rates[step] = driven / (1 + weight_decay * driven)

    def schedule(count: ArrayLike) -> jax.Array:
        index = jnp.clip(jnp.asarray(count), 0, steps - 1)
        return jnp.asarray(rates)[index]

    return schedule


def exponential_schedule(
    learning_rate: float, weight_decay: float, momentum: float = 0.0
) -> optax.Schedule:
    r"""Return the increasing learning rate that is equivalent to weight decay.

    On scale-invariant weights, SGD with a constant learning rate and weight
    decay has the same directions as SGD without decay and with

    \[\eta_t = \eta\,\alpha^{-2t-1},\]

    where \(\alpha\) is the larger root of
    \(\alpha^2 - (1 + \mu - \eta\lambda)\,\alpha + \mu = 0\). Without momentum
    it is \(1 - \eta\lambda\). The convention is \(m \leftarrow \mu m + g\)
    (\(+ \lambda w\), with decay) and \(w \leftarrow w - \eta_t m\), as in
    `optax.sgd` and torch. With momentum the buffer must start at
    `exponential_trace`.

    The learning rate and the weights grow without bound. At
    \(\eta\lambda = 10^{-3}\) the learning rate overflows float32 after some
    44,000 steps, and so does the squared norm of the weights. The schedule is
    meant for comparisons that show the effect of weight decay.

    Args:
        learning_rate: \(\eta\) of the decayed run.
        weight_decay: \(\lambda\) of the decayed run.
        momentum: \(\mu\) of both runs.

    Returns:
        A schedule in JAX's default floating dtype; infinite after an overflow.

    Raises:
        TypeError: the learning rate or the momentum is not a number.
        ValueError: \(\eta\lambda > (1 - \sqrt\mu)^2\), where the decayed run
            oscillates and no schedule is equivalent; a momentum outside
            [0, 1).

    Examples:
        >>> schedule = exponential_schedule(0.1, 0.01)
        >>> print(f"{schedule(0):.4f} {schedule(1000):.4f}")
        0.1001 0.7404

    References:
        Li and Arora, [An exponential learning rate schedule for deep
        learning](https://arxiv.org/abs/1910.07454), ICLR 2020.
    """
    shrinkage = _shrinkage(learning_rate, weight_decay, momentum)
    growth = -math.log1p(-shrinkage)

    def schedule(count: ArrayLike) -> jax.Array:
        time = 2 * jnp.asarray(count).astype(float) + 1
        return learning_rate * jnp.exp(time * growth)

    return schedule


def exponential_trace(
    params: optax.Params,
    learning_rate: float,
    weight_decay: float,
    momentum: float,
) -> optax.Updates:
    r"""Return the initial momentum buffer for `exponential_schedule`.

    \(m_{-1} = -(1-\alpha)\,w_0/(\eta\alpha)\), in place of the zeros of the
    decayed run. Set it in the `TraceState` of `optax.sgd`.

    Args:
        params: the initial weights.
        learning_rate: see `exponential_schedule`.
        weight_decay: see `exponential_schedule`.
        momentum: see `exponential_schedule`.

    Returns:
        A tree like params. Without momentum it has no effect.

    Raises:
        TypeError: see `exponential_schedule`.
        ValueError: see `exponential_schedule`.

    Examples:
        >>> trace = exponential_trace(np.ones(2), 0.1, 0.01, 0.9)
        >>> print(trace.round(3))
        [-0.113 -0.113]

    References:
        Li and Arora, [An exponential learning rate schedule for deep
        learning](https://arxiv.org/abs/1910.07454), ICLR 2020.
    """
    shrinkage = _shrinkage(learning_rate, weight_decay, momentum)
    factor = -shrinkage / (learning_rate * (1 - shrinkage))
    return jax.tree.map(lambda w: factor * w, params)


def _shrinkage(
    learning_rate: float, weight_decay: float, momentum: float
) -> float:
    r"""Return \(1 - \alpha\), the smaller root of b² - (1-mu+x) b + x = 0."""
    check_decay("momentum", momentum)
    check_positive("learning_rate", learning_rate)
    x = learning_rate * weight_decay
    bound = (1 - math.sqrt(momentum)) ** 2
    if not 0 <= x <= bound or x == 1:
        raise ValueError(
            f"learning_rate * weight_decay = {x} is not between 0 and"
            f" (1 - sqrt(momentum))^2 = {bound}, or is 1: the decayed run"
            " oscillates. Reduce the learning rate or the weight decay."
        )
    half = (1 - momentum + x) / 2
    # By Vieta: a difference would cancel.
    return x / (half + math.sqrt(max(half * half - x, 0.0)))
