"""Elements picked, or written, by indices that the program computes."""

from typing import Any

from psi_optax.invariance.analysis.context import Context
from psi_optax.invariance.analysis.index_digits import (
    Digit,
)
from psi_optax.invariance.analysis.linear_forms import (
    Form,
    digits_along,
    move_axes,
    move_index_digits,
)
from psi_optax.invariance.analysis.rules.slices import sliced
from psi_optax.invariance.analysis.rules.table import Call, rule
from psi_optax.invariance.analysis.values import Value, combined_dependencies


def lookup_axis(
    context: Context, indices: Value, length: int, part: int | str
) -> str:
    """Return the name of an index that is looked up along an axis.

    Equal indices have equal names. Indices beyond the end mean something else
    for another length.

    Args:
        context: the analysis.
        indices: the array that the program looks up.
        length: the length of the axis.
        part: the part of the indices that belongs to the axis, or how they are
            looked up.
    """
    number = context.notes.number_of(indices.identity)
    return f"lookup {number}.{part} of {length}"


# -- reads -------------------------------------------------------------------


@rule("gather")
def _gather(call: Call) -> list[Value]:
    context, [x, indices], shape = call.context, call.operands, call.shape
    numbers = call.params["dimension_numbers"]
    x = _filled(call, x)
    batch = [a for a in range(len(shape)) if a not in numbers.offset_dims]
    positions = _gathered_positions(numbers, x.rank, batch)
    looked_up, form = _looked_up_axes(call, x)

    def move(digit: Digit) -> Digit:
        axis = digit.axis
        if axis in looked_up:
            part = numbers.start_index_map.index(axis)
            length = x.shape[int(axis)]
            name = lookup_axis(context, indices, length, part)
            return digit._replace(axis=name, over=tuple(batch))
        over = tuple(positions[a] for a in digit.over)
        axis = axis if isinstance(axis, str) else positions[axis]
        return digit._replace(axis=axis, over=over)

    for axis in looked_up:
        form = _without_nested(context, form, axis)
    bits = combined_dependencies(call.operands)
    return [
        x.derived(shape, move_index_digits(form, move)).replace(depends_on=bits)
    ]


def _filled(call: Call, x: Value) -> Value:
    """Require an array not to scale if lookups beyond the end are filled."""
    filling = call.params.get("fill_value")
    is_number = filling is not None and filling == filling
    if not is_number or filling == 0:
        return x
    text = "elements looked up beyond the end have a fixed value"
    return call.context.require_invariant(x, "mixture", text)


def _gathered_positions(
    numbers: Any, rank: int, batch: list[int]
) -> dict[int, int]:
    """Return the new positions of axes that a gather keeps."""
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    kept = [a for a in range(rank) if a not in gone]
    positions = dict(zip(kept, numbers.offset_dims, strict=True))
    pairs = zip(
        numbers.operand_batching_dims,
        numbers.start_indices_batching_dims,
        strict=True,
    )
    return positions | {a: batch[b] for a, b in pairs}


def _looked_up_axes(call: Call, x: Value) -> tuple[list[int], Form]:
    """Return the axes along which single elements are looked up.

    And the form, uniform along axes with other parts.
    """
    context, form, looked_up = call.context, x.form, []
    numbers, sizes = (
        call.params["dimension_numbers"],
        call.params["slice_sizes"],
    )
    for axis in numbers.collapsed_slice_dims:
        if axis in numbers.start_index_map:
            looked_up.append(axis)
        else:  # Always the first element.
            form = context.require_uniform(form, axis)
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    for axis in (a for a in range(x.rank) if a not in gone):
        if sizes[axis] == 1 and axis in numbers.start_index_map:
            looked_up.append(axis)
        elif sizes[axis] != x.shape[axis]:
            form = context.require_uniform(form, axis)
    return looked_up, context.equations.reduce(form)


def _without_nested(context: Context, form: Form, axis: int) -> Form:
    """Require a form not to change by lookups along the same axis before."""
    nested = [d for t in form for d in t.all_digits if axis in d.over]
    text = "a lookup in elements that are looked up"
    return context.require_uniform_in(form, nested, text)


@rule("dynamic_slice")
def _dynamic_slice(call: Call) -> list[Value]:
    context, sizes = call.context, call.params["slice_sizes"]
    x, *starts = call.operands
    partial = [a for a in range(x.rank) if sizes[a] != x.shape[a]]
    first = [0] * x.rank
    for axis in partial:
        if (start := starts[axis].const) is None:
            break
        last = x.shape[axis] - sizes[axis]
        first[axis] = min(max(int(start), 0), last)
    else:
        limits = [a + b for a, b in zip(first, sizes, strict=True)]
        return [sliced(context, x, first, limits, [1] * x.rank)]
    form = x.form
    for axis in partial:
        lookups = any(d.over for d in digits_along(form, axis))
        if sizes[axis] != 1 or lookups:
            form = context.require_uniform(form, axis)

    def move(digit: Digit) -> Digit:
        axis = digit.axis
        if axis not in partial:
            return digit
        start, length = starts[int(axis)], x.shape[int(axis)]
        name = lookup_axis(context, start, length, "start")
        return digit._replace(axis=name)

    form = move_index_digits(context.equations.reduce(form), move)
    bits = combined_dependencies(call.operands)
    return [x.derived(call.shape, form).replace(depends_on=bits)]


# -- writes ------------------------------------------------------------------


def _written(call: Call, form: Form, x: Value, update: Value) -> Value:
    """Return an array with some elements overwritten."""
    zero = x.is_zero_or_inf and update.is_zero_or_inf
    bits = combined_dependencies(call.operands)
    return Value(call.shape, form, is_zero_or_inf=zero, depends_on=bits)


@rule("dynamic_update_slice")
def _dynamic_update_slice(call: Call) -> list[Value]:
    context, [x, update, *_] = call.context, call.operands
    old, new = x.form, update.form
    for axis in range(x.rank):
        if update.shape[axis] != x.shape[axis]:
            old = context.require_uniform(old, axis)
            new = context.require_uniform(new, axis)
    form = context.unify(x.replace(form=old), update.replace(form=new))
    return [_written(call, form, x, update)]


@rule("scatter", "scatter-add", "scatter-sub", "scatter-max", "scatter-min")
def _scatter(call: Call) -> list[Value]:
    context, [x, _, updates] = call.context, call.operands
    positions = _aligned_axes(call.params["dimension_numbers"], x, updates)
    old, new = x.form, updates.form
    for axis in set(range(x.rank)) - set(positions.values()):
        old = context.require_uniform(old, axis)
    for axis in set(range(updates.rank)) - set(positions):
        new = context.require_uniform(new, axis)
    new = move_axes(context.equations.reduce(new), positions)
    form = context.unify(
        x.replace(form=old), updates.replace(form=new, shape=x.shape)
    )
    return [_written(call, form, x, updates)]


def _aligned_axes(numbers: Any, x: Value, updates: Value) -> dict[int, int]:
    """Return the axes of updates that meet axes of x element by element."""
    gone = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    kept = [a for a in range(x.rank) if a not in gone]
    window = zip(numbers.update_window_dims, kept, strict=True)
    # A window as long as the axis has one position, or is dropped.
    aligned = {a: b for a, b in window if updates.shape[a] == x.shape[b]}
    batch = [
        a for a in range(updates.rank) if a not in numbers.update_window_dims
    ]
    pairs = zip(
        numbers.scatter_indices_batching_dims,
        numbers.operand_batching_dims,
        strict=True,
    )
    return aligned | {batch[a]: b for a, b in pairs}


@rule("scatter-mul")
def _scatter_multiply(call: Call) -> list[Value]:
    x, _, factors = call.operands
    text = "some elements are multiplied by scaled values"
    call.context.require_invariant(factors, "mixture", text)
    bits = combined_dependencies(call.operands)
    return [x.derived(call.shape, x.form).replace(depends_on=bits)]


@rule("iota")
def _iota(call: Call) -> list[Value]:
    axes = frozenset(range(len(call.shape))) - {call.params["dimension"]}
    return [Value(call.shape, constant_axes=axes)]
