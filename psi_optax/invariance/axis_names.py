"""Bind names of axes of devices, which collectives of a loss refer to."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax.groups.types import Tree
from psi_optax.invariance import jaxprs
from psi_optax.invariance.hoisting import hoist_constants


def read_axis_names(axis_name: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names as a tuple.

    Raises:
        TypeError: one is no string.
        ValueError: two are equal.
    """
    if axis_name is None:
        return ()
    names = (axis_name,) if isinstance(axis_name, str) else axis_name
    if not isinstance(names, tuple | list) or not all(
        isinstance(name, str) for name in names
    ):
        raise TypeError(
            f"axis_name={axis_name!r}: pass a name, or a tuple of names."
        )
    if len(set(names)) < len(names):
        raise ValueError(f"axis_name={axis_name!r}: a name appears twice.")
    return tuple(names)


def bind_axis(
    loss: Callable[..., Any], name: str, varies: Sequence[bool]
) -> Callable[..., Any]:
    """Bind a name to an axis of two devices.

    The second device has other data: the rows of an array moved by one, along
    its first axis of several. Otherwise all that differs between devices would
    be zero. So have the arrays that the loss closes over.

    Args:
        loss: called as loss(params, *arrays), on each device.
        name: the name of the axis.
        varies: whether each of the arrays is data of one device.

    Returns:
        A function of the same arguments. It returns the results of both
        devices.
    """

    def bound(params: Tree, *arrays: Any) -> Any:
        opened, constants = _with_constants(loss, name, (params, *arrays))
        pairs = list(zip(arrays, varies, strict=True))
        rows = [_axis_of_rows(x) if data else None for x, data in pairs]
        rows += map(_axis_of_rows, constants)
        data = (*arrays, *constants)
        stacked = [
            x if axis is None else _of_two_devices(x, axis)
            for x, axis in zip(data, rows, strict=True)
        ]
        axes = [None if axis is None else 0 for axis in rows]
        mapped = jax.vmap(
            opened, in_axes=(None, *axes), axis_size=2, axis_name=name
        )
        return mapped(params, *stacked)

    return bound


def devices_differ(program: Any, args: Iterable[Any]) -> bool:
    """Check that devices have different data.

    Where they have no arguments, but random numbers, these may be the data, and
    are the same on all devices.

    Args:
        program: a loss whose names are bound.
        args: its arguments that are arrays.
    """
    if any(_axis_of_rows(x) is not None for x in args):
        return True
    return _closes_over_rows(program) and not jaxprs.draws_numbers(program)


def _closes_over_rows(program: Any) -> bool:
    inner, constants = jaxprs.open_jaxpr(program)
    pairs = zip(inner.constvars, constants, strict=True)
    return any(
        not jaxprs.is_ref(v) and _axis_of_rows(x) is not None for v, x in pairs
    )


def _with_constants(
    loss: Callable[..., Any], name: str, args: tuple[Any, ...]
) -> tuple[Callable[..., Any], list[Any]]:
    """Return a loss that takes arrays with rows that it closes over, and these.

    Args:
        loss: called with args.
        name: the axis that it names.
        args: those of one device.
    """
    traced = []

    def trace(args: tuple[Any, ...]) -> jax.Array:
        program, shapes = jaxprs.make_jaxpr(loss, *args)
        traced.append((hoist_constants(program, *args), shapes))
        return jnp.zeros(())

    jax.vmap(trace, None, None, axis_size=2, axis_name=name)(args)
    [(program, shapes)] = traced
    if not _closes_over_rows(program):
        return loss, []
    call, constants = jaxprs.without_constants(program)
    structure, count = jax.tree.structure(shapes), len(args)

    def opened(*inputs: Any) -> Any:
        args, constants = inputs[:count], inputs[count:]
        found = call(constants, *jax.tree.leaves(args))
        return jax.tree.unflatten(structure, found)

    return opened, constants


def _axis_of_rows(x: Any) -> int | None:
    """Return the first axis of several elements; None of numbers and keys."""
    is_raw_key = x.dtype == np.uint32 and x.shape == (2,)
    if is_raw_key or jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return None
    return next((axis for axis, n in enumerate(x.shape) if n > 1), None)


def _of_two_devices(x: Any, axis: int) -> Any:
    """Return an array, and another with rows moved by one.

    The first row stays, so that the mean differs. Of two rows, the second is
    the mean of both: equal rows would have no variance.
    """
    if isinstance(x, jax.core.Tracer):
        return jnp.stack([x, _with_other_rows(jnp, x, axis)])
    # Constants stay as they are: operations on them would round.
    held = np.asarray(jax.device_get(x))
    return np.stack([held, _with_other_rows(np, held, axis)])


def _with_other_rows(xp: Any, x: Any, axis: int) -> Any:
    count = x.shape[axis]
    moved = xp.take(x, np.maximum(np.arange(count) - 1, 0), axis)
    if count > 2 or not jnp.issubdtype(x.dtype, np.inexact):
        return moved
    return (x / 2 + moved / 2).astype(x.dtype)
