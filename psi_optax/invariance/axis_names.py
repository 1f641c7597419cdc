"""Bind names of axes of devices, which collectives of a loss refer to."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax.groups.types import Tree


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
    be zero.

    Args:
        loss: called as loss(params, *arrays), on each device.
        name: the name of the axis.
        varies: whether each of the arrays is data of one device.

    Returns:
        A function of the same arguments. It returns the results of both
        devices.
    """

    def bound(params: Tree, *arrays: Any) -> Any:
        pairs = list(zip(arrays, varies, strict=True))
        rows = [_axis_of_rows(x) if data else None for x, data in pairs]
        stacked = [
            x if axis is None else jnp.stack([x, _with_other_rows(x, axis)])
            for x, axis in zip(arrays, rows, strict=True)
        ]
        axes = [None if axis is None else 0 for axis in rows]
        mapped = jax.vmap(
            loss, in_axes=(None, *axes), axis_size=2, axis_name=name
        )
        return mapped(params, *stacked)

    return bound


def _axis_of_rows(x: Any) -> int | None:
    """Return the first axis of several elements; None of numbers and keys."""
    is_raw_key = x.dtype == np.uint32 and x.shape[-1:] == (2,)
    if is_raw_key or jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return None
    return next((axis for axis, n in enumerate(x.shape) if n > 1), None)


def _with_other_rows(x: Any, axis: int) -> jax.Array:
    """Move rows by one; the first stays, so that the mean differs.

    Two rows are exchanged: equal ones have no variance.
    """
    count = x.shape[axis]
    rows = np.maximum(np.arange(count) - 1, 0)
    return jnp.take(x, rows if count > 2 else np.array([1, 0]), axis)
