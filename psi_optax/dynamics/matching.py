"""The rate at which directions turn as under weight decay, without it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from psi_optax._validation import check_positive
from psi_optax.dynamics.laws import Number, balance, make_decay


def matching_learning_rate(
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: float,
    *,
    optimizer: str = "sgd",
    momentum: float | None = None,
    b2: float | None = None,
    gradient_norm: float | jax.Array | None = None,
) -> Any:
    r"""What replaces a learning rate and a weight decay on fixed norms.

    A decayed optimizer settles at a rotation \(\theta\) a step, see
    `equilibrium_rotation`. A method that keeps norms turns at the same pace
    from the first step on if its rate is

    - \(\tan\theta\), where steps have a controlled length on the sphere and
      turn by the arctangent of the rate: `rotational`, `hyperball`;
    - \(\tan\theta\,\sqrt{(1-\mu^2)(1+q^2)}/c\) for `psi_sgd` with the same
      momentum. Its buffer of noise of norm c has the RMS norm
      \(c/\sqrt{1-\mu^2}\), of which a part does not turn anything: it points
      along the weights that it has moved. That part is q times the tangent
      one, \(q = \mu\sin\theta/(1-\mu\cos\theta)\), about
      \(\theta\mu/(1-\mu)\).

    The momentum being the same, not only single steps turn alike but also many
    steps together, under "sgdw" and "adamw", and under "sgd" where
    \(\eta\lambda\) is small against \((1-\mu)^2\); not under "lion".

    Given a schedule, what comes back is one: of the rotation that belongs to
    each rate, which goes with the root of it. The matched run follows it at
    once; a decayed one only as fast as its norms do, in
    \(1/(4\eta\lambda)\) steps ("sgd": \(1-\mu\) times that). A decayed run
    that is not several times as long never turns like its equilibrium.

    The matched rate is that of scale groups alone. Ordinary parameters, such
    as the last layer, go on as before: hand their optimizer, with its rate and
    its decay, over as `ordinary`.

    Args:
        learning_rate: the decayed optimizer's; a number, an array or a
            schedule.
        weight_decay: multiplied by the learning rate.
        optimizer: the decayed optimizer, as in `equilibrium_rotation`.
        momentum: as in `equilibrium_rotation`.
        b2: as in `equilibrium_rotation`.
        gradient_norm: None for the rate of steps of controlled length; for
            that of `psi_sgd`, the norm c of a group's gradient in direction
            space, \(|w|\,|g|\), its RMS over steps. This is for gradients that
            are noise, each independent of the last: where they oppose one
            another, as they do near a minimum, the buffer is shorter and c has
            to be smaller. A short run of `psi_sgd` at any rate shows the c
            that counts, by how far it turns (docs/matching-weight-decay.md).
            One c for all groups matches the RMS of their rotations, not each.

    Returns:
        A rate in radians a step, over the gradient's norm if that is given; a
        schedule if learning_rate is one.

    Raises:
        ValueError: as in `equilibrium_rotation`; a gradient norm that is not
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

        In place of SGD with rate 0.1, decay 5e-4 and momentum 0.9:

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

    def match(rate: Number) -> jax.Array:
        decay = make_decay(rate, weight_decay, optimizer, momentum, b2)
        gap = balance(decay, gradient_norm).gap
        sine = jnp.sqrt(gap * (2 - gap))
        tangent = sine / (1 - gap)
        if gradient_norm is None:
            return tangent
        mu = decay.momentum
        radial = mu * sine / (1 - mu + mu * gap)
        check_positive("gradient_norm", gradient_norm, arrays=True)
        buffer = jnp.sqrt((1 - mu**2) * (1 + radial * radial))
        return tangent * buffer / gradient_norm

    if not callable(learning_rate):
        return match(learning_rate)
    return _schedule(learning_rate, match)


def _schedule(
    learning_rate: optax.Schedule, match: Callable[[Number], jax.Array]
) -> optax.Schedule:
    def schedule(count):
        return match(learning_rate(count))

    return schedule
