"""Arrays and the parts of them that the devices of a mesh have."""

from typing import Any

from psi_optax.invariance.analysis import rules
from psi_optax.invariance.analysis.rules.collectives import (
    join_over,
    split_over,
)
from psi_optax.invariance.analysis.values import Context, Value


def _mesh_axes(spec, axis: int) -> tuple[str, ...]:
    names = spec[axis] if axis < len(spec) else None
    if names is None:
        return ()
    return (names,) if isinstance(names, str) else tuple(names)


def sharded(
    context: Context, value: Value, spec: Any, sizes: dict[str, int]
) -> Value:
    """Return the part of an array that one device has."""
    value = rules.without_lookups(context, value)
    form, shape = value.form, list(value.shape)
    divided = [
        axis for axis in range(value.rank) if axis not in value.constant_axes
    ]
    varying = {name for axis in divided for name in _mesh_axes(spec, axis)}
    for axis in range(value.rank):
        # From the last name, which changes fastest, to the first.
        whole = shape[axis]
        for name in _mesh_axes(spec, axis):
            whole //= sizes[name]
            form = split_over(context, form, axis, name, whole)
        shape[axis] = whole
    return Value(
        tuple(shape),
        form,
        is_zero_or_inf=value.is_zero_or_inf,
        const=value.const,
        runtime_number=value.runtime_number,
        constant_axes=value.constant_axes | (sizes.keys() - varying),
        depends_on=value.depends_on,
    )


def gathered(
    context: Context, value: Value, spec: Any, sizes: dict[str, int]
) -> Value:
    """Return the array that all devices have together."""
    value = rules.without_lookups(context, value)
    form, shape = value.form, list(value.shape)
    for axis in range(value.rank):
        for name in reversed(_mesh_axes(spec, axis)):
            form = join_over(form, axis, name, shape[axis])
            shape[axis] *= sizes[name]
    for name in sizes:
        form = context.require_uniform(form, name)
    return Value(
        tuple(shape),
        form,
        is_zero_or_inf=value.is_zero_or_inf,
        depends_on=value.depends_on,
    )
