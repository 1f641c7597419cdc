"""Learning rates of a schedule at sampled steps, if they are known."""

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax

# 1,000 steps: all up to 110, and from there on 1 % apart.
_STEPS = np.unique(
    np.append(0, np.geomspace(1, 1e6, 1349).round()).astype(np.int32)
)


def sample_rates(learning_rate: optax.ScalarOrSchedule) -> list[float]:
    """Return the finite learning rates of 1,000 steps up to a million.

    Steps at which the learning rate is traced, or the schedule fails, are
    omitted: a schedule of the user's may fail at steps that it never meets, or
    where a step is an array.

    Args:
        learning_rate: a number or a schedule.

    Examples:
        >>> max(sample_rates(optax.linear_schedule(0.5, 0.0, 100)))
        0.5
    """
    if not callable(learning_rate):
        return _known(learning_rate)
    with warnings.catch_warnings(), jax.ensure_compile_time_eval():
        warnings.simplefilter("ignore")
        rates = _at_all_steps(learning_rate)
    return [x for x in rates if math.isfinite(x)]


def _at_all_steps(schedule: optax.Schedule) -> list[float]:
    try:
        rates = jax.jit(jax.vmap(schedule))(jnp.asarray(_STEPS))
        return np.asarray(rates).tolist()
    except Exception:
        return [x for step in _STEPS for x in _at_step(schedule, int(step))]


def _at_step(schedule: optax.Schedule, step: int) -> list[float]:
    try:
        return _known(schedule(step))
    except Exception:
        return []


def _known(rate: jax.typing.ArrayLike) -> list[float]:
    """Return a learning rate in a list, which is empty if it is traced."""
    if isinstance(rate, jax.core.Tracer):
        return []
    return [float(np.asarray(rate).item())]
