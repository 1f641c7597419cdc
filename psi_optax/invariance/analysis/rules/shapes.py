"""Arrays with the same elements, whose axes are arranged in another way."""

import bisect
import math
from collections.abc import Mapping, Sequence

from psi_optax.invariance.analysis.context import Context
from psi_optax.invariance.analysis.index_digits import (
    Axis,
    Digit,
)
from psi_optax.invariance.analysis.linear_forms import (
    Form,
    digits_of,
    move_axes,
    move_index_digits,
    moved_axes,
    remaining_axes,
)
from psi_optax.invariance.analysis.rules.table import Call, rule, stack
from psi_optax.invariance.analysis.values import (
    ArrayIdentity,
    Moment,
    Offset,
    Shape,
    Value,
)


def rearranged(
    value: Value, shape: Shape, form: Form, positions: Mapping[int, int]
) -> Value:
    """Return an array with its axes at other positions.

    Args:
        value: the array.
        shape: the shape of the result.
        form: the form of the result.
        positions: the new positions of axes that are kept as they are. The
            result is constant along all other axes.
    """
    new = set(range(len(shape))) - set(positions.values())
    moment = value.moment and value.moment.moved(positions)
    tested = value.tested_norm and value.tested_norm.moved(positions)
    # Infinities are those of one array, with its axes where they are.
    is_lost = value.tested_norm is not None and tested is None
    is_lost |= value.tested_for_inf is not None
    if value.moment is None:
        offsets = tuple(
            o._replace(constant_axes=o.constant_axes | new)
            for o in _moved_offsets(value, positions)
        )
    else:
        value = value if moment else value.without_moment()
        offsets = value.offsets
    return Value(
        shape,
        form,
        is_zero_or_inf=value.is_zero_or_inf,
        const=value.const,
        runtime_number=value.runtime_number,
        constant_axes=moved_axes(value.constant_axes, positions) | new,
        depends_on=value.depends_on,
        offsets=offsets,
        moment=moment,
        nonzero=value.nonzero,
        zero_test=0 if is_lost else value.zero_test,
        tested_norm=tested,
    )


def _moved_offsets(
    value: Value, positions: Mapping[int, int]
) -> tuple[Offset, ...]:
    """Return the offsets of an array whose axes have moved."""
    return tuple(
        offset._replace(
            constant_axes=moved_axes(offset.constant_axes, positions),
            guard=offset.guard and (offset.guard.moved(positions) or _LOST),
        )
        for offset in value.offsets
    )


# A norm of no array: a guard that no division makes unnecessary.
_LOST = Moment(ArrayIdentity(), frozenset(), 2, 1, 1, ())


@rule("broadcast_in_dim", keeps_offsets=True)
def _broadcast(call: Call) -> list[Value]:
    x, shape = call.operands[0], call.shape
    positions = dict(enumerate(call.params["broadcast_dimensions"]))
    form = move_axes(call.context.equations.reduce(x.form), positions)
    # An axis of length 1 that is stretched is constant and carries nothing.
    kept = {a: b for a, b in positions.items() if x.shape[a] == shape[b]}
    if x.moment is not None:
        stretched = positions.keys() - kept.keys()
        if stretched.isdisjoint(x.moment.positions):
            kept = positions
    return [rearranged(x, shape, form, kept)]


@rule("transpose", keeps_parts=True)
def _transpose(call: Call) -> list[Value]:
    order = call.params["permutation"]
    return [_transposed(call.context, call.operands[0], order)]


def _transposed(context: Context, x: Value, order: Sequence[int]) -> Value:
    shape = tuple(x.shape[a] for a in order)
    if x.parts:
        positions = remaining_axes(x.rank, (x.stack_axis,))
        own = [positions[a] for a in order if a != x.stack_axis]
        parts = [_transposed(context, part, own) for part in x.parts]
        return stack(context, parts, list(order).index(x.stack_axis), shape)
    positions = {a: b for b, a in enumerate(order)}
    form = move_axes(context.equations.reduce(x.form), positions)
    return rearranged(x, shape, form, positions)


@rule("squeeze", keeps_offsets=True)
def _squeeze(call: Call) -> list[Value]:
    [x] = call.operands
    positions = remaining_axes(x.rank, call.params["dimensions"])
    form = move_axes(call.context.equations.reduce(x.form), positions)
    return [rearranged(x, call.shape, form, positions)]


@rule("tile")
def _tile(call: Call) -> list[Value]:
    [x] = call.operands
    # Whole copies in a row: all digits of an index stay as they were.
    repeated = {a for a, n in enumerate(x.shape) if n == 1}
    return [
        x.derived(call.shape, x.form).replace(
            const=x.const, constant_axes=x.constant_axes | repeated
        )
    ]


@rule("rev")
def _reverse(call: Call) -> list[Value]:
    [x] = call.operands
    form = x.form
    for axis in call.params["dimensions"]:
        form = call.context.require_uniform(form, axis)
    return [x.derived(call.shape, form).replace(const=x.const)]


# -- reshapes ----------------------------------------------------------------


@rule("reshape", keeps_offsets=True)
def _reshape(call: Call) -> list[Value]:
    x, shape = call.operands[0], call.shape
    form = _reshaped(call.context, x.form, x.shape, shape)
    value = rearranged(x, shape, form, _whole_axes(x.shape, shape))
    sources = axis_sources(x.shape, shape)
    if x.moment is None:
        offsets = tuple(
            o._replace(constant_axes=_constant(old.constant_axes, sources))
            for o, old in zip(value.offsets, x.offsets, strict=True)
        )
        value = value.replace(offsets=offsets)
    return [value.replace(constant_axes=_constant(x.constant_axes, sources))]


def _constant(
    axes: frozenset[Axis], sources: Sequence[set[int]]
) -> frozenset[Axis]:
    """Return the new axes that are made of constant axes alone."""
    new = {b for b, old in enumerate(sources) if old <= axes}
    return moved_axes(axes, {}) | new


def axis_sources(shape: Shape, new_shape: Shape) -> list[set[int]]:
    """Return the axes, longer than 1, that each axis of a reshape is made of.

    No index is carried across a position where axes of both shapes end. The
    sources of an axis are those between two such positions.
    """
    total, strides = math.prod(shape), _strides(shape)
    new_strides = _strides(new_shape)
    ends = sorted({*strides, total} & {*new_strides, total})

    def segment(stride: int) -> int:
        return bisect.bisect_right(ends, stride)

    return [
        {
            a
            for a, n in enumerate(shape)
            if n > 1 < m and segment(strides[a]) == segment(stride)
        }
        for m, stride in zip(new_shape, new_strides, strict=True)
    ]


def _strides(shape: Shape) -> list[int]:
    """Return the distance of neighbours along each axis of a flat array."""
    return [math.prod(shape[a + 1 :]) for a in range(len(shape))]


def _whole_axes(shape: Shape, new_shape: Shape) -> dict[int, int]:
    """Return the positions of axes that a reshape leaves whole."""
    strides, new_strides = _strides(shape), _strides(new_shape)
    return {
        a: b
        for a, length in enumerate(shape)
        for b, other in enumerate(new_shape)
        if length == other != 1 and strides[a] == new_strides[b]
    }


def _reshaped(
    context: Context, form: Form, shape: Shape, new_shape: Shape
) -> Form:
    text = "a reshape that merges a scaled axis"
    while True:
        form = context.equations.reduce(form)
        moved = {}
        for digit in digits_of(form):
            new = _reshaped_digit(digit, shape, new_shape)
            if isinstance(new, int):
                reason = context.reason("shape", text)
                form = context.equations.cut(form, digit.axis, new, reason)
                break
            if new is None:
                form = context.require_uniform_in(form, [digit], text)
                break
            moved[digit] = new
        else:
            return move_index_digits(form, moved.__getitem__)


def _reshaped_digit(
    digit: Digit, shape: Shape, new_shape: Shape
) -> Digit | int | None:
    """Return a digit in the new shape.

    Or the stride at which it has to be cut before, or None if it is nowhere.
    """
    if isinstance(digit.axis, str):
        return _reshaped_name(digit, shape, new_shape)
    own = _strides(shape)[digit.axis]
    stride, end = digit.stride * own, digit.end * own
    new_strides = _strides(new_shape)
    for axis, new in enumerate(new_strides):
        top = new * new_shape[axis]
        if new <= stride and end <= top and not stride % new:
            if not top % end:
                return Digit(axis, stride // new, digit.count)
            return None
    for new in new_strides:
        if stride < new < end and not new % stride and not end % new:
            return new // own
    return None


def _reshaped_name(digit: Digit, shape: Shape, new_shape: Shape) -> Digit:
    """Return the digit of an index that is no axis, after a reshape."""
    if not digit.over:
        return digit
    kept = _whole_axes(shape, new_shape)
    if all(a in kept for a in digit.over):
        return digit._replace(over=tuple(kept[a] for a in digit.over))
    # The index of a lookup is another function of the new indices.
    name = f"{digit.axis}:{digit.over}:{shape}>{new_shape}"
    return digit._replace(axis=name, over=tuple(range(len(new_shape))))
