"""Functions of schedules, their sampled values, and the step to warn of."""

import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

# Radians per step. Above this, weights of free norm grow at once.
LARGEST_STEP = 0.3

# 1,000 steps: all up to 110, and from there on 1 % apart.
_STEPS = np.unique(
    np.append(0, np.geomspace(1, 1e6, 1349).round()).astype(np.int32)
)

# Of single steps: the first, and ever finer grids.
_ORDER = [
    *dict.fromkeys(i for n in (99, 9, 1) for i in [*range(9), *_STEPS[::n]])
]
_SECONDS = 0.5


def map_rate(
    function: Callable[[Any], Any], learning_rate: optax.ScalarOrSchedule
) -> Any:
    """Apply a function to a learning rate, or to a schedule at each step.

    Args:
        function: of a number, or of the value of a schedule.
        learning_rate: a number or a schedule.

    Examples:
        >>> map_rate(lambda x: 2 * x, 0.25)
        0.5
        >>> schedule = optax.linear_schedule(0.5, 0.0, 10)
        >>> map_rate(lambda x: 2 * x, schedule)(5).item()
        0.5
    """
    if not callable(learning_rate):
        return function(learning_rate)
    base = learning_rate

    def schedule(count: jax.typing.ArrayLike) -> Any:
        return function(base(count))

    return schedule


def sample_rates(learning_rate: optax.ScalarOrSchedule) -> list[float]:
    """Return the finite learning rates of 1,000 steps up to a million.

    Steps at which the learning rate is traced, or the schedule fails, are
    omitted: a schedule of the user's may fail at steps that it never meets, or
    where a step is an array. A schedule that JAX cannot trace, or that calls
    back into Python, is called for half a second at most. One with side
    effects, such as `jax.debug.print`, is not called.

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
        rates = _of_schedule(learning_rate)
    return [x for x in rates if math.isfinite(x)]


def _of_schedule(schedule: optax.Schedule) -> list[float]:
    try:
        traced = jax.make_jaxpr(schedule)(0)
        if traced.effects:
            return []
        # A callback would be called 1,000 times, however long it takes.
        if "callback" in str(traced):
            return _at_single_steps(schedule)
        rates = jax.jit(jax.vmap(schedule))(jnp.asarray(_STEPS))
        return np.asarray(rates).tolist()
    except Exception:
        return _at_single_steps(schedule)


def _at_single_steps(schedule: optax.Schedule) -> list[float]:
    """Return the rates of as many steps as the time allows."""
    end, rates = time.monotonic() + _SECONDS, []
    for step in _ORDER:
        rates += _at_step(schedule, int(step))
        if time.monotonic() > end:
            break
    return rates


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
