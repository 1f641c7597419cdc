"""Parts of arrays along an axis, and arrays that are put together."""

import itertools
import math
from collections.abc import Sequence

from psi_optax.invariance.analysis.context import Context
from psi_optax.invariance.analysis.index_digits import (
    Digit,
)
from psi_optax.invariance.analysis.linear_forms import (
    MAX_PARTS,
    Form,
    Term,
    conditions,
    digits_along,
    move_axes,
    remaining_axes,
    total,
)
from psi_optax.invariance.analysis.rules.shapes import rearranged
from psi_optax.invariance.analysis.rules.table import Call, apply, rule, stack
from psi_optax.invariance.analysis.values import (
    Shape,
    Value,
    combined_dependencies,
)

# -- parts -------------------------------------------------------------------


@rule("slice", keeps_parts=True)
def _slice(call: Call) -> list[Value]:
    context, params, [x] = call.context, call.params, call.operands
    starts, limits = params["start_indices"], params["limit_indices"]
    one = [1 if a == x.stack_axis else n for a, n in enumerate(x.shape)]
    if x.parts and list(call.shape) == one:
        return [_part(call, x, starts[x.stack_axis])]
    strides = params["strides"] or (1,) * x.rank
    x = context.resolve_offsets(x)
    return [sliced(context, x, starts, limits, strides)]


def _part(call: Call, x: Value, index: int) -> Value:
    """Return a part of a stack, with an axis of length 1."""
    part = x.parts[index]
    kept = [a for a in range(x.rank) if a != x.stack_axis]
    positions = dict(enumerate(kept))
    form = move_axes(call.context.equations.reduce(part.form), positions)
    return rearranged(part, call.shape, form, positions)


@rule("split", keeps_parts=True)
def _split(call: Call) -> list[Value]:
    [x], axis = call.operands, call.params["axis"]
    # Until JAX 0.9: `jnp.unstack` is this.
    if x.parts and x.stack_axis == axis and set(call.params["sizes"]) == {1}:
        return [_part(call, x, index) for index in range(len(x.parts))]
    x = call.context.resolve_offsets(x)
    ends = itertools.accumulate(call.params["sizes"], initial=0)
    return [
        _sliced_along(call.context, x, axis, start, limit)
        for start, limit in itertools.pairwise(ends)
    ]


@rule("unstack", keeps_parts=True)
def _unstack(call: Call) -> list[Value]:
    context, [x] = call.context, call.operands
    axis = call.params["axis"] % x.rank
    if x.parts and x.stack_axis == axis:
        return list(x.parts)
    x = context.resolve_offsets(x)
    positions = remaining_axes(x.rank, (axis,))
    found = []
    for index, shape in enumerate(call.shapes):
        part = _sliced_along(context, x, axis, index, index + 1)
        form = move_axes(context.equations.reduce(part.form), positions)
        found.append(rearranged(part, shape, form, positions))
    return found


def _sliced_along(
    context: Context, x: Value, axis: int, start: int, limit: int
) -> Value:
    """Return a part of an array along one axis."""
    starts, limits = [0] * x.rank, list(x.shape)
    starts[axis], limits[axis] = start, limit
    return sliced(context, x, starts, limits, [1] * x.rank)


def sliced(
    context: Context,
    x: Value,
    starts: Sequence[int],
    limits: Sequence[int],
    strides: Sequence[int],
) -> Value:
    """Return a part of an array along several axes."""
    form, shape = x.form, list(x.shape)
    if any(a >= b for a, b in zip(starts, limits, strict=True)):
        empty = [max(b - a, 0) for a, b in zip(starts, limits, strict=True)]
        return Value(tuple(empty), is_zero_or_inf=True)
    for axis, cut in enumerate(zip(starts, limits, strides, strict=True)):
        start, limit, stride = cut
        shape[axis] = -(-(limit - start) // stride)
        if shape[axis] == x.shape[axis]:
            continue
        if stride != 1:
            form = context.require_uniform(form, axis)
        else:
            block = slice(start, limit)
            form = _sliced_form(context, form, axis, x.shape[axis], block)
    return x.derived(tuple(shape), form).replace(
        const=x.const, constant_axes=x.constant_axes
    )


def _sliced_form(
    context: Context, form: Form, axis: int, length: int, block: slice
) -> Form:
    form = context.equations.reduce(form)
    along = digits_along(form, axis)
    if not along:
        return form
    unit = math.gcd(block.start, block.stop, length)
    if any(d.over for d in along) or length // unit > MAX_PARTS:
        return context.require_uniform(form, axis)
    digit = Digit(axis, unit, length // unit)
    indices = range(block.start // unit, block.stop // unit)
    return _joined(context, _blocks(context, form, digit, indices), axis, unit)


def _blocks(
    context: Context, form: Form, digit: Digit, indices: Sequence[int]
) -> list[Form]:
    """Return the forms of blocks of an axis."""
    reason = context.reason("shape", "a part of a scaled axis")
    return [
        context.equations.restrict(form, digit, index, reason)
        for index in indices
    ]


def _joined(
    context: Context, parts: Sequence[Form], axis: int, unit: int
) -> Form:
    """Return the forms of consecutive blocks of an axis as one."""
    parts = [context.equations.reduce(part) for part in parts]
    if len(parts) == 1 or not any(parts):
        return parts[0]
    are_equal = all(part == parts[0] for part in parts)
    if are_equal and not digits_along(parts[0], axis):
        return parts[0]
    block = Digit(axis, unit, len(parts))
    return total(
        (Term(*term[:2], conditions([*term.where, (block, index)])), c)
        for index, part in enumerate(parts)
        for term, c in part.items()
    )


# -- arrays put together -----------------------------------------------------


@rule("concatenate", keeps_offsets=True)
def _concatenate(call: Call) -> list[Value]:
    axis = call.params["dimension"]
    # Until JAX 0.9: `jnp.stack` is this.
    if all(x.shape[axis] == 1 for x in call.operands) and any(
        x.offsets or x.moment for x in call.operands
    ):
        slices = [_squeezed(call.context, x, axis) for x in call.operands]
        return [stack(call.context, slices, axis, call.shape)]
    return _joined_arrays(
        call.on(*map(call.context.resolve_offsets, call.operands))
    )


def _squeezed(context: Context, x: Value, axis: int) -> Value:
    shape = x.shape[:axis] + x.shape[axis + 1 :]
    [found] = apply(
        "squeeze", Call(context, {"dimensions": (axis,)}, [x], [shape])
    )
    return found


def _joined_arrays(call: Call) -> list[Value]:
    context, axis, shape = call.context, call.params["dimension"], call.shape
    arrays = [
        _without_lookups(context, x, axis)
        for x in call.operands
        if x.shape[axis]
    ]
    zero = all(x.is_zero_or_inf for x in arrays)
    whole = Value(
        shape, is_zero_or_inf=zero, depends_on=combined_dependencies(arrays)
    )
    reduce = context.equations.reduce
    forms = [reduce(x.form) for x in arrays if not x.is_zero_or_inf]
    are_equal = bool(forms) and all(form == forms[0] for form in forms)
    if zero or (are_equal and not digits_along(forms[0], axis)):
        return [whole.replace(form=forms[0])] if are_equal else [whole]
    unit = math.gcd(*(x.shape[axis] for x in arrays))
    if shape[axis] // unit > MAX_PARTS:
        uniform = [context.require_uniform(form, axis) for form in forms]
        form = context.unify_all(Value(shape, form) for form in uniform)
        return [whole.replace(form=context.require_uniform(form, axis))]
    parts: list[Form] = []
    for x in arrays:
        block = Digit(axis, unit, x.shape[axis] // unit)
        parts += _blocks(context, x.form, block, range(block.count))
    return [whole.replace(form=_joined(context, parts, axis, unit))]


def _without_lookups(context: Context, x: Value, axis: int) -> Value:
    """Require an array not to scale by indices looked up along an axis.

    In another array that index is another one.
    """
    form = context.equations.reduce(x.form)
    lookups = [d for d in digits_along(form, axis) if d.axis != axis]
    text = "parts of a table that is looked up"
    return x.replace(form=context.require_uniform_in(form, lookups, text))


@rule("stack", keeps_offsets=True)
def _stack(call: Call) -> list[Value]:
    axis = call.params["axis"] % len(call.shape)
    whole = _stacked(call.context, axis, call.operands, call.shape)
    if any(x.offsets or x.moment for x in call.operands):
        whole = whole.replace(parts=tuple(call.operands), stack_axis=axis)
    return [whole]


def _stacked(
    context: Context, axis: int, arrays: Sequence[Value], shape: Shape
) -> Value:
    reduce = context.equations.reduce
    positions = {a: a + (a >= axis) for a in range(arrays[0].rank)}
    forms = [move_axes(reduce(x.form), positions) for x in arrays]
    whole = Value(
        shape,
        is_zero_or_inf=all(x.is_zero_or_inf for x in arrays),
        depends_on=combined_dependencies(arrays),
    )
    scaled = [
        form
        for x, form in zip(arrays, forms, strict=True)
        if not x.is_zero_or_inf
    ]
    if all(form == scaled[0] for form in scaled):
        return whole.replace(form=scaled[0]) if scaled else whole
    if len(forms) > MAX_PARTS:
        form = context.unify_all(Value(shape, form) for form in scaled)
        return whole.replace(form=reduce(form))
    return whole.replace(form=_joined(context, forms, axis, 1))


@rule("pad")
def _pad(call: Call) -> list[Value]:
    context, [x, padding] = call.context, call.operands
    form, config = x.form, call.params["padding_config"]
    padded = [a for a, amount in enumerate(config) if any(amount)]
    for axis in padded:
        form = context.require_uniform(form, axis)
    if padded and not padding.is_zero_or_inf:
        x = x.replace(form=form)
        form = context.unify(x, padding.replace(shape=x.shape))
    return [
        Value(
            call.shape,
            form,
            is_zero_or_inf=x.is_zero_or_inf and padding.is_zero_or_inf,
            depends_on=combined_dependencies(call.operands),
        )
    ]
