"""Checks of arguments, the same for every public function.

A number is a Python number, or an array of shape () such as the tracers that
`optax.inject_hyperparams` hands over. Its type and shape are always checked,
its value where it is known: a traced value passes.
"""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from psi_optax._messages import short_repr

Radius = str | None | jax.typing.ArrayLike


def check_number(name: str, value: Any, *, arrays: bool = False) -> None:
    """Raises for anything but a real number.

    Args:
        name: of the argument.
        value: of the argument.
        arrays: whether an array of several numbers passes.

    Raises:
        TypeError: no number, a boolean or a complex number.
        ValueError: an array of another shape than ().
    """
    if callable(value):
        raise TypeError(
            f"{name}={short_repr(value)} is a schedule: give its value at a step, or"
            " let optax.inject_hyperparams do so."
        )
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not real:
        dtype = getattr(value, "dtype", np.dtype(object))
        kinds = (jnp.integer, jnp.floating)
        real = any(jnp.issubdtype(dtype, kind) for kind in kinds)
    if not real:
        raise TypeError(
            f"{name}={short_repr(value)} is no number: give a real number. Are the"
            " arguments in order?"
        )
    if not _lies(value, np.isfinite):
        raise ValueError(f"{name}={short_repr(value)} is not finite.")
    if np.shape(value) and not arrays:
        raise ValueError(
            f"{name} has shape {np.shape(value)}: give one number, of shape ()."
        )


def _lies(value: Any, where: Callable[[np.ndarray], Any]) -> bool:
    """Whether all of a number lies there, as far as it is known."""
    if isinstance(value, jax.core.Tracer):
        return True
    return bool(np.all(where(np.asarray(jax.device_get(value)))))


def check_positive(name: str, value: Any, *, arrays: bool = False) -> None:
    """Raises for anything but a positive number; see `check_number`."""
    check_number(name, value, arrays=arrays)
    if not _lies(value, lambda x: x > 0):
        raise ValueError(f"{name}={short_repr(value)} is not positive.")


def check_nonnegative(name: str, value: Any, *, arrays: bool = False) -> None:
    """Raises for anything but zero or a positive number."""
    check_number(name, value, arrays=arrays)
    if not _lies(value, lambda x: x >= 0):
        raise ValueError(
            f"{name}={short_repr(value)} is negative, or NaN: give 0 or more."
        )


def check_decay(name: str, value: Any) -> None:
    """Raises for anything but a decay of a running mean or sum."""
    check_number(name, value)
    # In single precision, which takes what is nearer to 1 than 3e-8 for it.
    if not _lies(value, lambda x: (x >= 0) & (x.astype(np.float32) < 1)):
        raise ValueError(f"{name}={short_repr(value)} is not in [0, 1).")


def check_period(name: str, value: Any) -> None:
    """Raises for anything but a whole number of steps, at least 1."""
    check_positive(name, value)
    if not jnp.issubdtype(jnp.result_type(value), jnp.integer):
        raise ValueError(
            f"{name}={short_repr(value)} is not a whole number of steps."
        )


def check_schedule(
    name: str, value: Any, check: Callable[[str, Any], None] = check_number
) -> Any:
    """Returns a number that passes the check, or a schedule of numbers.

    A schedule is not called here. The value that it has at each step is checked
    by `check_number`.

    Args:
        name: of the argument.
        value: a number or a schedule.
        check: of a number.
    """
    if not callable(value):
        check(name, value)
        return value

    def schedule(count):
        at_step = value(count)
        check_number(f"{name}(count)", at_step)
        return at_step

    return schedule


def check_learning_rate(learning_rate: Any) -> optax.ScalarOrSchedule:
    """Returns a learning rate, which is no number below zero."""
    return check_schedule("learning_rate", learning_rate, check_nonnegative)


def check_radius(radius: Radius) -> None:
    """Raises for anything but a positive number, "init" or None."""
    if isinstance(radius, str):
        if radius != "init":
            raise ValueError(
                f'radius={radius!r}: choose "init", None or a number.'
            )
    elif radius is not None:
        check_positive("radius", radius)


def check_flag(**flags: Any) -> None:
    """Raises for a flag that is neither True nor False."""
    for name, value in flags.items():
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(
                f"{name}={short_repr(value)}: choose True or False."
            )


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    """Raises for a value that is none of the choices."""
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name}={short_repr(value)}: choose one of {listed}.")


def check_transformation(**given: Any) -> None:
    """Raises for an argument that is no gradient transformation."""
    for name, tx in given.items():
        if not (hasattr(tx, "init") and hasattr(tx, "update")):
            raise TypeError(
                f"{name}={short_repr(tx)} is no gradient transformation, such as"
                " optax.sgd(0.1), or a direction, such as optax.trace(0.9). Are"
                " the arguments in order?"
            )
