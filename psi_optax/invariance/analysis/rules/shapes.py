"""The same elements in another arrangement."""

import bisect
import math

from psi_optax.invariance.analysis.linear_forms import (
    MAX_PARTS,
    Axis,
    Digit,
    Form,
    Term,
    digits_along,
    digits_of,
    move_axes,
    move_digits,
    moved_axes,
    plus,
)
from psi_optax.invariance.analysis.rules.reductions import (
    moved_offsets,
    without,
)
from psi_optax.invariance.analysis.rules.table import dependencies, rule, stack
from psi_optax.invariance.analysis.values import Context, Value


def rearranged(value: Value, shape, form: Form, place: dict) -> Value:
    """An array with its axes at other places; new ones are constant."""
    new = set(range(len(shape))) - set(place.values())
    flat = moved_axes(value.constant_axes, place) | new
    moment = value.moment and value.moment.moved(place)
    guarded = value.tested_norm and value.tested_norm.moved(place)
    # Infinities are those of one array, with its axes where they are.
    lost = (
        bool(value.tested_norm and not guarded) or value.inf_test_of is not None
    )
    if value.moment is None:
        offsets = moved_offsets(value, place)
        offsets = tuple(
            o._replace(constant_axes=o.constant_axes | new) for o in offsets
        )
    else:
        value = value if moment else value.without_moment()
        offsets = value.offsets
    return Value(
        tuple(shape),
        form,
        is_zero_or_inf=value.is_zero_or_inf,
        const=value.const,
        runtime_number=value.runtime_number,
        constant_axes=flat,
        depends_on=value.depends_on,
        offsets=offsets,
        moment=moment,
        nonzero=value.nonzero,
        zero_test=0 if lost else value.zero_test,
        tested_norm=guarded,
    )


@rule("broadcast_in_dim", keeps_offsets=True)
def _broadcast(context, params, operands, shapes):
    x = operands[0]
    place = dict(enumerate(params["broadcast_dimensions"]))
    form = move_axes(context.equations.reduce(x.form), place)
    # An axis of length 1 that is stretched is constant and carries nothing.
    kept = {a: b for a, b in place.items() if x.shape[a] == shapes[0][b]}
    if x.moment is not None:
        stretched = [a for a in place if a not in kept]
        if not any(a in stretched for a in x.moment.place if a is not None):
            kept = place
    return [rearranged(x, shapes[0], form, kept)]


@rule("transpose", keeps_parts=True)
def _transpose(context, params, operands, shapes):
    return [_transposed(context, operands[0], params["permutation"])]


def _transposed(context: Context, x: Value, order) -> Value:
    shape = tuple(x.shape[a] for a in order)
    if x.parts:
        place = without(x, (x.stack_axis,))
        own = [place[a] for a in order if a != x.stack_axis]
        parts = [_transposed(context, part, own) for part in x.parts]
        return stack(context, parts, list(order).index(x.stack_axis), shape)
    place = {a: b for b, a in enumerate(order)}
    form = move_axes(context.equations.reduce(x.form), place)
    return rearranged(x, shape, form, place)


@rule("squeeze", keeps_offsets=True)
def _squeeze(context, params, operands, shapes):
    [x] = operands
    place = without(x, params["dimensions"])
    form = move_axes(context.equations.reduce(x.form), place)
    return [rearranged(x, shapes[0], form, place)]


@rule("reshape", keeps_offsets=True)
def _reshape(context, params, operands, shapes):
    x, shape = operands[0], shapes[0]
    form = _reshaped(context, x.form, x.shape, shape)
    value = rearranged(x, shape, form, _kept(x.shape, shape))
    made = _made_of(x.shape, shape)
    if x.moment is None:
        offsets = tuple(
            o._replace(constant_axes=_spread(old.constant_axes, made))
            for o, old in zip(value.offsets, x.offsets, strict=True)
        )
        value = value.replace(offsets=offsets)
    return [value.replace(constant_axes=_spread(x.constant_axes, made))]


def _spread(flat: frozenset[Axis], made: list[set[int]]) -> frozenset[Axis]:
    """Return the new axes that are made of constant ones alone."""
    new = {b for b, axes in enumerate(made) if axes <= flat}
    return moved_axes(flat, {}) | new


def _made_of(shape, new_shape) -> list[set[int]]:
    """Return the axes, longer than 1, that each axis of a reshape is made of.

    Those between two ends that both shapes have: nothing is carried over them.
    """
    total, tails, new_tails = math.prod(shape), _tails(shape), _tails(new_shape)
    ends = sorted({*tails, total} & {*new_tails, total})

    def segment(tail: int) -> int:
        return bisect.bisect_right(ends, tail)

    return [
        {
            a
            for a, n in enumerate(shape)
            if n > 1 < m and segment(tails[a]) == segment(tail)
        }
        for m, tail in zip(new_shape, new_tails, strict=True)
    ]


def _tails(shape) -> list[int]:
    """How far apart neighbours along each axis lie in the flat array."""
    return [math.prod(shape[a + 1 :]) for a in range(len(shape))]


def _kept(shape, new_shape) -> dict[int, int]:
    """Where the axes are that a reshape leaves whole."""
    tails, new_tails = _tails(shape), _tails(new_shape)
    return {
        a: b
        for a, length in enumerate(shape)
        for b, other in enumerate(new_shape)
        if length == other != 1 and tails[a] == new_tails[b]
    }


def _reshaped(context: Context, form: Form, shape, new_shape) -> Form:
    tails, new_tails = _tails(shape), _tails(new_shape)
    reason = context.reason("shape", "a reshape that merges a scaled axis")
    while True:
        form = context.equations.reduce(form)
        moved = {}
        for digit in digits_of(form):
            place = _moved(digit, shape, tails, new_shape, new_tails)
            if isinstance(place, int):
                form = context.equations.cut(form, digit.axis, place, reason)
                break
            if place is None:
                context.equations.require_uniform(form, [digit], reason)
                break
            moved[digit] = place
        else:
            return move_digits(form, moved.__getitem__)


def _moved(digit: Digit, shape, tails, new_shape, new_tails):
    """The digit in the new shape; or where to cut it first; or None."""
    if isinstance(digit.axis, str):
        if not digit.over:
            return digit
        kept = _kept(shape, new_shape)
        if all(a in kept for a in digit.over):
            return digit._replace(over=tuple(kept[a] for a in digit.over))
        # A looked-up index is a function of position, which has new names.
        name = f"{digit.axis}:{digit.over}:{shape}>{new_shape}"
        axes = tuple(range(len(new_shape)))
        return digit._replace(axis=name, over=axes)
    stride = digit.stride * tails[digit.axis]
    end = stride * digit.count
    for axis, tail in enumerate(new_tails):
        top = tail * new_shape[axis]
        if tail <= stride and end <= top and not stride % tail:
            if not top % end:
                return Digit(axis, stride // tail, digit.count)
            return None
    for tail in new_tails:
        inner = tail // tails[digit.axis] if tail else 0
        if stride < tail < end and not tail % stride and not end % tail:
            return inner
    return None


@rule("tile")
def _tile(context, params, operands, shapes):
    [x] = operands
    # Whole copies one after another: all digits of an index are what they were.
    repeated = {a for a, n in enumerate(x.shape) if n == 1}
    return [
        Value(
            shapes[0],
            x.form,
            is_zero_or_inf=x.is_zero_or_inf,
            const=x.const,
            constant_axes=x.constant_axes | repeated,
            depends_on=x.depends_on,
        )
    ]


@rule("unstack", keeps_parts=True)
def _unstack(context, params, operands, shapes):
    [x] = operands
    axis, found = params["axis"] % x.rank, []
    if x.parts and x.stack_axis == axis:
        return list(x.parts)
    x = context.resolve_offsets(x)
    place = without(x, (axis,))
    for index in range(x.shape[axis]):
        starts, limits = [0] * x.rank, list(x.shape)
        starts[axis], limits[axis] = index, index + 1
        part = sliced(context, x, starts, limits, [1] * x.rank)
        form = move_axes(context.equations.reduce(part.form), place)
        found.append(rearranged(part, shapes[index], form, place))
    return found


@rule("rev")
def _rev(context, params, operands, shapes):
    [x] = operands
    form = x.form
    for axis in params["dimensions"]:
        form = context.require_uniform(form, axis)
    return [
        Value(
            shapes[0],
            form,
            is_zero_or_inf=x.is_zero_or_inf,
            const=x.const,
            depends_on=x.depends_on,
        )
    ]


@rule("slice", keeps_parts=True)
def _slice(context, params, operands, shapes):
    starts, limits = params["start_indices"], params["limit_indices"]
    strides = params["strides"] or (1,) * len(starts)
    [x] = operands
    kept = [a for a in range(x.rank) if a != x.stack_axis]
    one = [1 if a == x.stack_axis else n for a, n in enumerate(x.shape)]
    if x.parts and list(shapes[0]) == one:
        part, place = x.parts[starts[x.stack_axis]], dict(enumerate(kept))
        form = move_axes(context.equations.reduce(part.form), place)
        return [rearranged(part, shapes[0], form, place)]
    x = context.resolve_offsets(x)
    return [sliced(context, x, starts, limits, strides)]


def sliced(context: Context, x: Value, starts, limits, strides) -> Value:
    """A part of an array along several axes."""
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
            form = _sliced(context, form, axis, x.shape[axis], start, limit)
    return Value(
        tuple(shape),
        form,
        is_zero_or_inf=x.is_zero_or_inf,
        const=x.const,
        constant_axes=x.constant_axes,
        depends_on=x.depends_on,
    )


def _sliced(context, form: Form, axis, length, start, limit) -> Form:
    form = context.equations.reduce(form)
    along = digits_along(form, axis)
    if not along:
        return form
    unit = math.gcd(start, limit, length)
    if any(d.over for d in along) or length // unit > MAX_PARTS:
        return context.require_uniform(form, axis)
    reason = context.reason("shape", "a part of a scaled axis")
    block = Digit(axis, unit, length // unit)
    parts = [
        context.equations.restrict(form, block, index, reason)
        for index in range(start // unit, limit // unit)
    ]
    return _stacked(context, parts, axis, unit)


def _stacked(context, parts: list[Form], axis, unit: int) -> Form:
    """Forms of consecutive blocks of an axis as one."""
    parts = [context.equations.reduce(part) for part in parts]
    if len(parts) == 1 or not any(parts):
        return parts[0]
    same = all(part == parts[0] for part in parts)
    if same and not digits_along(parts[0], axis):
        return parts[0]
    block = Digit(axis, unit, len(parts))
    total: Form = {}
    for index, part in enumerate(parts):
        for term, c in part.items():
            where = tuple(sorted([*term.where, (block, index)], key=repr))
            total = plus(total, {Term(*term[:2], where): c})
    return total


@rule("split")
def _split(context, params, operands, shapes):
    [x] = operands
    axis, start, found = params["axis"], 0, []
    for length in params["sizes"]:
        starts, limits = [0] * x.rank, list(x.shape)
        starts[axis], limits[axis] = start, start + length
        found.append(sliced(context, x, starts, limits, [1] * x.rank))
        start += length
    return found


@rule("concatenate")
def _concatenate(context, params, operands, shapes):
    axis, shape = params["dimension"], shapes[0]
    operands = [
        _without_lookups(context, x, axis) for x in operands if x.shape[axis]
    ]
    every = all(x.is_zero_or_inf for x in operands)
    known = {"is_zero_or_inf": every, "depends_on": dependencies(operands)}
    reduce = context.equations.reduce
    scaled = [reduce(x.form) for x in operands if not x.is_zero_or_inf]
    one = scaled and all(form == scaled[0] for form in scaled)
    if every or (one and not digits_along(scaled[0], axis)):
        return [Value(shape, scaled[0] if one else {}, **known)]
    unit = math.gcd(*(x.shape[axis] for x in operands))
    if shape[axis] // unit > MAX_PARTS:
        form = scaled[0]
        for other in scaled[1:]:
            form = context.require_uniform(form, axis)
            other = context.require_uniform(other, axis)
            form = context.unify(Value(shape, form), Value(shape, other))
        return [Value(shape, context.require_uniform(form, axis), **known)]
    reason = context.reason("shape", "a part of a scaled axis")
    parts = []
    for x in operands:
        block = Digit(axis, unit, x.shape[axis] // unit)
        parts += [
            context.equations.restrict(x.form, block, index, reason)
            for index in range(block.count)
        ]
    return [Value(shape, _stacked(context, parts, axis, unit), **known)]


@rule("stack", keeps_offsets=True)
def _stack(context, params, operands, shapes):
    axis = params["axis"] % len(shapes[0])
    whole = _stacked_whole(context, axis, operands, shapes[0])
    if any(x.offsets or x.moment for x in operands):
        whole = whole.replace(parts=tuple(operands), stack_axis=axis)
    return [whole]


def _stacked_whole(context: Context, axis: int, operands, shape) -> Value:
    place = {a: a + (a >= axis) for a in range(operands[0].rank)}
    parts = [
        move_axes(context.equations.reduce(x.form), place) for x in operands
    ]
    known = {
        "is_zero_or_inf": all(x.is_zero_or_inf for x in operands),
        "depends_on": dependencies(operands),
    }
    scaled = [
        part
        for x, part in zip(operands, parts, strict=True)
        if not x.is_zero_or_inf
    ]
    if all(part == scaled[0] for part in scaled):
        return Value(shape, scaled[0] if scaled else {}, **known)
    if len(parts) > MAX_PARTS:
        values = [Value(shape, part) for part in scaled]
        for value in values[1:]:
            context.unify(values[0], value)
        return Value(shape, context.equations.reduce(scaled[0]), **known)
    return Value(shape, _stacked(context, parts, axis, 1), **known)


def _without_lookups(context: Context, x: Value, axis: int) -> Value:
    """What is looked up along an axis is another thing in another array."""
    form = context.equations.reduce(x.form)
    lookups = [d for d in digits_along(form, axis) if d.axis != axis]
    reason = context.reason("shape", "parts of what is looked up")
    context.equations.require_uniform(form, lookups, reason)
    return x.replace(form=context.equations.reduce(form))


@rule("pad")
def _pad(context, params, operands, shapes):
    x, value = operands
    form = x.form
    padded = [
        a for a, amount in enumerate(params["padding_config"]) if any(amount)
    ]
    for axis in padded:
        form = context.require_uniform(form, axis)
    x = x.replace(form=form)
    if padded and not value.is_zero_or_inf:
        form = context.unify(x, value.replace(shape=x.shape))
    return [
        Value(
            shapes[0],
            form,
            is_zero_or_inf=x.is_zero_or_inf and value.is_zero_or_inf,
            depends_on=dependencies(operands),
        )
    ]
