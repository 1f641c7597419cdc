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
    names = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"axis_name={axis_name!r}: pass a name, or a tuple of names."
        )
    if len(set(names)) < len(names):
        raise ValueError(f"axis_name={axis_name!r}: a name appears twice.")
    return names


def bind_axis(
    loss: Callable[..., Any], name: str, varies: Sequence[bool]
) -> Callable[..., Any]:
    """Bind a name to an axis of two devices.

    The second device has other data: the rows of an array moved by one.
    Otherwise all that differs between devices would be zero.

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
        differ = [data and _has_rows(x) for x, data in pairs]
        axes = [0 if one else None for one in differ]
        stacked = [
            jnp.stack([jnp.asarray(x), _other_rows(x)]) if one else x
            for x, one in zip(arrays, differ, strict=True)
        ]
        mapped = jax.vmap(
            loss, in_axes=(None, *axes), axis_size=2, axis_name=name
        )
        return mapped(params, *stacked)

    return bound


def _has_rows(x: Any) -> bool:
    """Check that an array has several rows, and is no random key."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return False
    is_raw_key = x.dtype == np.uint32 and x.shape[-1:] == (2,)
    return not is_raw_key and x.ndim > 0 and len(x) > 1


def _other_rows(x: Any) -> jax.Array:
    """Move rows by one; the first stays, so that the mean differs.

    Two rows are exchanged: equal ones have no variance.
    """
    rows = np.maximum(np.arange(len(x)) - 1, 0)
    return jnp.asarray(x)[[1, 0] if len(x) == 2 else rows]
