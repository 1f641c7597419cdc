"""Learning rates of wider networks and larger batches."""

from collections.abc import Mapping
from typing import Any

import jax
import optax

from psi_optax._schedules import map_rate
from psi_optax._validation import (
    check_choice,
    check_learning_rate,
    check_positive,
)

RULES: Mapping[str, Mapping[str, float]] = {
    "width": {"rotational": -0.5, "adamh": -0.5, "muonh": 0.0},
    "batch, equal steps": {"muonh": 0.5},
    "batch, equal examples": {"psi_adam": 1.0, "muonh": 1.0},
}
"""By factor and optimizer, the power that held for two networks."""

_OPTIMIZERS = ("psi_sgd", "psi_adam", "rotational", "adamh", "muonh")


def transfer_learning_rate(
    learning_rate: optax.ScalarOrSchedule,
    optimizer: str,
    *,
    width: float = 1.0,
    batch: float = 1.0,
    equal: str = "steps",
) -> Any:
    r"""Return a learning rate for a wider network or a larger batch.

    The learning rate is multiplied by a power of each factor:

    | optimizer | width | batch, equal steps | batch, equal examples |
    |---|---|---|---|
    | "rotational", around Adam | -1/2 | | |
    | "adamh" | -1/2 | | |
    | "muonh" | 0 | 1/2 | 1 |
    | "psi_adam" | | | 1 |
    | "psi_sgd" | | | |

    These held for a BatchNorm MLP and a Transformer at 8 times the width and 16
    times the batch: in the median of both, predicted learning rates were within
    half an octave of the best ones, single ones within an octave. Their losses
    were within the spread of seeds; "rotational", "adamh" and "muonh" had one
    seed (docs/experiments/transfer.md). Where nothing is listed no power held.
    Over the initial scale of proven groups learning rates are constant,
    exactly. Learning rates of ordinary parameters are not converted.

    Args:
        learning_rate: a number or a schedule. A schedule keeps its number of
            steps.
        optimizer: a name in the table.
        width: the new width over the old one.
        batch: the new batch size over the old one.
        equal: "steps" if a larger batch has as many steps, "examples" if it has
            as many examples, and fewer steps.

    Returns:
        A number, or a schedule if `learning_rate` is one.

    Raises:
        TypeError: the learning rate or a factor is not a number; a factor is
            traced.
        ValueError: an unknown optimizer, or one with no rule for a factor other
            than 1; a factor that is not positive; a negative learning rate.

    Examples:
        >>> transfer_learning_rate(0.01, "adamh", width=4)
        0.005
        >>> schedule = optax.cosine_decay_schedule(0.01, 10)
        >>> schedule = transfer_learning_rate(schedule, "muonh", batch=16)
        >>> print(f"{schedule(0):.3f}")
        0.040
    """
    check_choice("optimizer", optimizer, _OPTIMIZERS)
    check_choice("equal", equal, ("steps", "examples"))
    learning_rate = check_learning_rate(learning_rate)
    times = _times(optimizer, "width", "width", width)
    times *= _times(optimizer, "batch", f"batch, equal {equal}", batch)
    return map_rate(lambda x: times * x, learning_rate)


def _times(optimizer: str, name: str, factor: str, value: float) -> float:
    """Return the power of a factor that its rule states."""
    check_positive(name, value)
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"{name} is traced: pass a Python number, from outside of jax.jit."
        )
    if value == 1:
        return 1.0
    power = RULES[factor].get(optimizer)
    if power is None:
        known = ", ".join(map(repr, RULES[factor]))
        raise ValueError(
            f"{name}={value!r}: no power of the factor ({factor}) predicted the"
            f" best learning rate of {optimizer!r}. Tune it again. There is"
            f" a rule for {known}."
        )
    # A factor of NumPy or JAX would change the dtype of the learning rate.
    return float(value) ** power
