"""Checks of arguments, the same for every public function.

A number is a Python number, or an array of shape () such as the tracers that
`optax.inject_hyperparams` passes. Its type and shape are always checked. Its
value is checked if it is known: a traced value passes.
"""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from psi_optax._text import short_repr


def check_number(name: str, value: Any, *, arrays: bool = False) -> None:
    """Require a finite real number.

    Args:
        name: of the argument.
        value: of the argument.
        arrays: whether to accept an array of several numbers.

    Raises:
        TypeError: not a number, a boolean or a complex number.
        ValueError: an array of another shape than (), or a non-finite number.
    """
    if callable(value):
        raise TypeError(
            f"{name}={short_repr(value)} is a schedule: pass its value at a"
            " step, or use optax.inject_hyperparams."
        )
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not real:
        dtype = getattr(value, "dtype", np.dtype(object))
        kinds = (jnp.integer, jnp.floating)
        real = any(jnp.issubdtype(dtype, kind) for kind in kinds)
    if not real:
        remedy = (
            "pass its learning_rate."
            if hasattr(value, "learning_rate")
            else "pass a real number. Are the arguments in order?"
        )
        raise TypeError(f"{name}={short_repr(value)} is not a number: {remedy}")
    if not _holds(value, np.isfinite):
        raise ValueError(f"{name}={short_repr(value)} is not finite.")
    if np.shape(value) and not arrays:
        raise ValueError(
            f"{name} has shape {np.shape(value)}: pass one number, of shape ()."
        )


def _holds(value: Any, condition: Callable[[np.ndarray], Any]) -> bool:
    """Return whether all of a number meets a condition, if it is known."""
    if isinstance(value, jax.core.Tracer):
        return True
    return bool(np.all(condition(np.asarray(jax.device_get(value)))))


def check_positive(name: str, value: Any, *, arrays: bool = False) -> None:
    """Require a positive number; see `check_number`."""
    check_number(name, value, arrays=arrays)
    if not _holds(value, lambda x: x > 0):
        raise ValueError(f"{name}={short_repr(value)} is not positive.")


def check_nonnegative(name: str, value: Any, *, arrays: bool = False) -> None:
    """Require zero or a positive number; see `check_number`."""
    check_number(name, value, arrays=arrays)
    if not _holds(value, lambda x: x >= 0):
        raise ValueError(
            f"{name}={short_repr(value)} is negative: pass 0 or more."
        )


def check_decay(name: str, value: Any) -> None:
    """Require a decay of a running mean or sum, in [0, 1)."""
    check_number(name, value)
    # Single precision rounds a decay within 3e-8 of 1 to 1.
    if not _holds(value, lambda x: (x >= 0) & (x.astype(np.float32) < 1)):
        raise ValueError(
            f"{name}={short_repr(value)} is not in [0, 1). If it was rounded to"
            " 16 bits, pass hyperparam_dtype=jnp.float32 to"
            " optax.inject_hyperparams."
            if _is_half(value)
            else f"{name}={short_repr(value)} is not in [0, 1)."
        )


def _is_half(value: Any) -> bool:
    return getattr(getattr(value, "dtype", None), "itemsize", None) == 2


def check_period(name: str, value: Any) -> None:
    """Require a whole number of steps, at least 1."""
    check_positive(name, value)
    if not jnp.issubdtype(jnp.result_type(value), jnp.integer):
        raise ValueError(
            f"{name}={short_repr(value)} is not a whole number of steps."
        )


def check_schedule(
    name: str, value: Any, check: Callable[[str, Any], None] = check_number
) -> Any:
    """Return a number that passes the check, or a schedule of numbers.

    The values of a schedule are checked by `check_number` at each step.

    Args:
        name: of the argument.
        value: a number or a schedule.
        check: applied to a number.
    """
    if not callable(value):
        check(name, value)
        return value

    def schedule(count: jax.typing.ArrayLike) -> jax.typing.ArrayLike:
        at_step = value(count)
        check_number(f"{name}(count)", at_step)
        return at_step

    return schedule


def check_learning_rate(learning_rate: Any) -> optax.ScalarOrSchedule:
    """Return a learning rate that is a nonnegative number or a schedule."""
    return check_schedule("learning_rate", learning_rate, check_nonnegative)


def check_flag(**flags: Any) -> None:
    """Require True or False for each flag."""
    for name, value in flags.items():
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(
                f"{name}={short_repr(value)}: choose True or False."
            )


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    """Require one of the choices."""
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name}={short_repr(value)}: choose one of {listed}.")


def check_transformation(**given: Any) -> None:
    """Require a gradient transformation for each argument."""
    for name, tx in given.items():
        if not (hasattr(tx, "init") and hasattr(tx, "update")):
            example = "trace(0.9)" if name == "direction" else "sgd(0.1)"
            raise TypeError(
                f"{name}={short_repr(tx)} is not a gradient transformation,"
                f" such as optax.{example}. Are the arguments in order?"
            )
