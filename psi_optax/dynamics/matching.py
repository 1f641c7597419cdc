"""Learning rates that reproduce the rotation of weight decay without it."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from psi_optax._schedules import map_rate
from psi_optax._validation import check_positive
from psi_optax.dynamics.stationary_processes import (
    DecayedOptimizer,
    make_decayed_optimizer,
    solve_equilibrium,
)


def matching_learning_rate(
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: float,
    *,
    optimizer: str = "sgd",
    momentum: float | None = None,
    b2: float | None = None,
    gradient_norm: ArrayLike | None = None,
) -> Any:
    r"""Return the learning rate on fixed norms that replaces weight decay.

    An optimizer with weight decay has an equilibrium rotation \(\theta\) per
    step, see `equilibrium_rotation`. A method with fixed norms rotates by it
    from the first step on, if its learning rate is

    - \(\tan\theta\), for steps of controlled length on the sphere, which rotate
      by the arctangent of the learning rate: `rotational`, `hyperball`;
    - \(\tan\theta\,\sqrt{(1-\mu^2)(1+q^2)}/c\) for `psi_sgd` with the same
      momentum. Under noise of norm c the RMS norm of its buffer is
      \(c/\sqrt{1-\mu^2}\). The radial part of the buffer, along its own earlier
      steps, rotates nothing. It is q times the tangent part, with
      \(q = \mu\sin\theta/(1-\mu\cos\theta)\), about \(\theta\mu/(1-\mu)\).

    With the same momentum, rotations over many steps match as well: under
    "sgdw" and "adamw", and under "sgd" if \(\eta\lambda \ll (1-\mu)^2\), but
    not under "lion".

    A schedule gives a schedule, of the equilibrium rotation at each learning
    rate: about proportional to the root of the learning rate. The matched run
    follows it at once. The decayed run lags by \(1/(4\eta\lambda)\) steps
    ("sgd": \(1-\mu\) times as many, "adamw" and "lion": twice as many), as
    its norms do. A decayed run that is not several times as long never reaches
    its equilibrium.

    The result is for scale groups alone. Ordinary parameters, such as the last
    layer, keep their optimizer with its learning rate and decay: pass it as
    `ordinary`.

    Args:
        learning_rate: of the decayed optimizer; a number, an array or a
            schedule.
        weight_decay: positive, multiplied by the learning rate.
        optimizer: the decayed optimizer; see `equilibrium_rotation`.
        momentum: see `equilibrium_rotation`.
        b2: see `equilibrium_rotation`.
        gradient_norm: None for steps of controlled length. For `psi_sgd`, the
            norm c of a group's gradient in direction space, \(|w|\,|g|\), as
            RMS over steps. The formula assumes that gradients are independent
            noise. Near a minimum they oppose one another: the buffer is
            shorter, and the effective c smaller. Measure it by the rotation of
            a short run of `psi_sgd` at any learning rate
            (docs/matching-weight-decay.md). One c for all groups matches the
            RMS of their rotations, not each rotation.

    Returns:
        A learning rate in radians per step, divided by the gradient norm if
        that is given; a schedule if learning_rate is one.

    Raises:
        TypeError: see `equilibrium_rotation`.
        ValueError: see `equilibrium_rotation`; a gradient norm that is not
            positive.

    Examples:
        >>> rate = matching_learning_rate(0.1, 5e-4, momentum=0.9)
        >>> print(f"{rate:.5f}")
        0.00725
        >>> schedule = matching_learning_rate(
        ...     optax.cosine_decay_schedule(0.1, 100), 5e-4, momentum=0.9
        ... )
        >>> print(f"{schedule(50):.5f}")
        0.00513

        In place of SGD with learning rate 0.1, decay 5e-4 and momentum 0.9:

        >>> from psi_optax import ScaleGroup, rotational
        >>> head = optax.chain(
        ...     optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9)
        ... )
        >>> tx = rotational(
        ...     rate,
        ...     optax.trace(0.9),
        ...     {"hidden": ScaleGroup(axes=0), "head": None},
        ...     ordinary=head,
        ... )

    References:
        Kosson, Messmer and Jaggi, [Rotational
        equilibrium](https://arxiv.org/abs/2305.17212), ICML 2024.
    """

    def match(rate: ArrayLike) -> jax.Array:
        decayed = make_decayed_optimizer(
            rate, weight_decay, optimizer, momentum, b2
        )
        return _matched_rate(decayed, gradient_norm)

    return map_rate(match, learning_rate)


def _matched_rate(
    decayed: DecayedOptimizer, gradient_norm: ArrayLike | None
) -> jax.Array:
    """Return the learning rate on fixed norms for the equilibrium rotation."""
    gap = solve_equilibrium(decayed, gradient_norm).cosine_gap
    sine = jnp.sqrt(gap * (2 - gap))
    tangent = sine / (1 - gap)
    if gradient_norm is None:
        return tangent
    mu = decayed.momentum
    radial = mu * sine / (1 - mu + mu * gap)
    check_positive("gradient_norm", gradient_norm, arrays=True)
    buffer = jnp.sqrt((1 - mu**2) * (1 + radial * radial))
    return tangent * buffer / gradient_norm
