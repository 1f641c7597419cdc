"""Angles per step of wider networks."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from psi_optax._validation import check_learning_rate, check_positive


def angle_at_width(
    learning_rate: optax.ScalarOrSchedule, width: float
) -> optax.ScalarOrSchedule:
    r"""Return the angle per step for a network of another width.

    An angle that was tuned for a network is divided by \(\sqrt k\) for one that
    is k times as wide. Best angles of `rotational` around Adam and of `adamh`
    followed this rule within half an octave, from a BatchNorm MLP and from a
    Transformer to 8 times the width, where the old angle was up to 2.6 times
    too large (docs/experiments/transfer.md). `muonh` lost nothing there with
    an angle that is constant. No rule held for `psi_sgd`, nor one for
    `psi_adam` on both networks. Rates of ordinary parameters are not
    converted.

    Args:
        learning_rate: a number or a schedule: an angle, in radians per step.
        width: k, the new width over the old one, positive.

    Returns:
        A number, or a schedule if `learning_rate` is one.

    Raises:
        TypeError: the learning rate or the width is not a number.
        ValueError: a negative learning rate; a width that is not positive.

    Examples:
        >>> angle_at_width(0.01, 4)
        0.005
        >>> schedule = angle_at_width(optax.cosine_decay_schedule(0.01, 10), 4)
        >>> print(f"{schedule(5):.4f}")
        0.0025
    """
    check_positive("width", width)
    learning_rate = check_learning_rate(learning_rate)
    factor = width**-0.5
    if not callable(learning_rate):
        return learning_rate * factor
    base = learning_rate

    def schedule(count: ArrayLike) -> jax.Array:
        return factor * jnp.asarray(base(count))

    return schedule
