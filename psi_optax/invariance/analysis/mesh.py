"""Whole arrays and the parts of them that the devices of a mesh hold."""

from collections.abc import Mapping, Sequence
from typing import Any

from psi_optax.invariance.analysis.context import Context
from psi_optax.invariance.analysis.index_digits import (
    Digit,
)
from psi_optax.invariance.analysis.linear_forms import (
    Form,
    move_index_digits,
)
from psi_optax.invariance.analysis.rules.reductions import without_lookups
from psi_optax.invariance.analysis.values import Value


def _mesh_axes(spec: Sequence[Any], axis: int) -> tuple[str, ...]:
    """Return the mesh axes that an axis is divided over."""
    names = spec[axis] if axis < len(spec) else None
    if names is None:
        return ()
    return (names,) if isinstance(names, str) else tuple(names)


def shard(
    context: Context,
    value: Value,
    spec: Sequence[Any],
    sizes: Mapping[str, int],
) -> Value:
    """Return the part of an array that one device holds.

    Args:
        context: the analysis.
        value: the array.
        spec: its partition spec.
        sizes: the sizes of the mesh axes.
    """
    value = without_lookups(context, value)
    form, shape = value.form, list(value.shape)
    divided = [a for a in range(value.rank) if a not in value.constant_axes]
    varying = {name for axis in divided for name in _mesh_axes(spec, axis)}
    for axis in range(value.rank):
        # From the last name, which changes fastest, to the first.
        local = shape[axis]
        for name in _mesh_axes(spec, axis):
            local //= sizes[name]
            form = split_over_mesh(context, form, axis, name, local)
        shape[axis] = local
    return value.derived(tuple(shape), form).replace(
        const=value.const,
        runtime_number=value.runtime_number,
        constant_axes=value.constant_axes | (sizes.keys() - varying),
    )


def gather(
    context: Context,
    value: Value,
    spec: Sequence[Any],
    sizes: Mapping[str, int],
) -> Value:
    """Return the array that all devices hold together; see `shard`."""
    value = without_lookups(context, value)
    form, shape = value.form, list(value.shape)
    for axis in range(value.rank):
        for name in reversed(_mesh_axes(spec, axis)):
            form = join_over_mesh(form, axis, name, shape[axis])
            shape[axis] *= sizes[name]
    for name in sizes:
        form = context.require_uniform(form, name)
    return value.derived(tuple(shape), form)


def split_over_mesh(
    context: Context, form: Form, axis: int, name: str, local: int
) -> Form:
    """Return the form of the part of an array that one device holds.

    Args:
        context: the analysis.
        form: the form of the whole array.
        axis: the axis that is divided.
        name: the mesh axis that it is divided over.
        local: the length that is left.
    """
    reason = context.reason("shape", "shards of a scaled axis")
    form = context.equations.cut(form, axis, local, reason)
    return move_index_digits(
        context.equations.reduce(form),
        lambda d: (
            Digit(name, d.stride // local, d.count)
            if d.axis == axis and d.stride >= local
            else d
        ),
    )


def join_over_mesh(form: Form, axis: int, name: str, local: int) -> Form:
    """Return the form of the whole array; the inverse of `split_over_mesh`."""
    return move_index_digits(
        form,
        lambda d: (
            Digit(axis, d.stride * local, d.count) if d.axis == name else d
        ),
    )
