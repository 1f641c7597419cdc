"""Elements picked by indices that the program computes."""

from psi_optax.invariance.analysis.linear_forms import (
    Digit,
    digits_along,
    move_axes,
    move_digits,
)
from psi_optax.invariance.analysis.rules.shapes import sliced
from psi_optax.invariance.analysis.rules.table import dependencies, rule
from psi_optax.invariance.analysis.values import Context, Value


@rule("gather")
def _gather(context, params, operands, shapes):
    x, indices = operands
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    batch = [a for a in range(len(shapes[0])) if a not in numbers.offset_dims]
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    kept = [a for a in range(x.rank) if a not in gone]
    place = dict(zip(kept, numbers.offset_dims, strict=True))
    for a, b in zip(
        numbers.operand_batching_dims,
        numbers.start_indices_batching_dims,
        strict=True,
    ):
        place[a] = batch[b]
    form = x.form
    filling = params.get("fill_value")
    if filling is not None and filling == filling and filling != 0:
        text = "what is looked up beyond the end has a value of its own"
        x = context.require_invariant(x, "mixture", text)
        form = x.form
    looked_up = []
    for axis in numbers.collapsed_slice_dims:
        if axis in numbers.start_index_map:
            looked_up.append(axis)
        else:  # Always the first.
            form = context.require_uniform(form, axis)
    for axis in kept:
        if sizes[axis] == 1 and axis in numbers.start_index_map:
            looked_up.append(axis)
        elif sizes[axis] != x.shape[axis]:
            form = context.require_uniform(form, axis)
    form = context.equations.reduce(form)

    def move(digit: Digit) -> Digit:
        axis = digit.axis
        if axis in looked_up:
            part = numbers.start_index_map.index(axis)
            # Indices beyond the end mean something else for another length.
            name = f"lookup {indices.identity}.{part} of {x.shape[int(axis)]}"
            return digit._replace(axis=name, over=tuple(batch))
        over = tuple(place[a] for a in digit.over)
        axis = axis if isinstance(axis, str) else place[axis]
        return digit._replace(axis=axis, over=over)

    for axis in looked_up:
        form = _without_nested(context, form, axis)
    form = move_digits(form, move)
    return [
        Value(
            shapes[0],
            form,
            is_zero_or_inf=x.is_zero_or_inf,
            depends_on=dependencies(operands),
        )
    ]


def _without_nested(context: Context, form, axis: int):
    """Lookups in what was looked up along the same axis are given up."""
    nested = [d for t in form for d in t.all_digits if axis in d.over]
    reason = context.reason("shape", "a lookup in what is looked up")
    context.equations.require_uniform(form, nested, reason)
    return context.equations.reduce(form)


@rule("dynamic_slice")
def _dynamic_slice(context, params, operands, shapes):
    x, *starts = operands
    sizes = params["slice_sizes"]
    starts = starts[: x.rank]
    partial = [a for a in range(x.rank) if sizes[a] != x.shape[a]]
    known = {a: starts[a].const for a in partial}
    first = [0] * x.rank
    for a, start in known.items():
        if start is not None:
            first[a] = min(max(int(start), 0), x.shape[a] - sizes[a])
    if None not in known.values():
        last = [a + b for a, b in zip(first, sizes, strict=True)]
        return [sliced(context, x, first, last, [1] * x.rank)]
    form = x.form
    for axis in partial:
        lookups = any(d.over for d in digits_along(form, axis))
        if sizes[axis] != 1 or lookups:
            form = context.require_uniform(form, axis)
    form = context.equations.reduce(form)

    def move(digit: Digit) -> Digit:
        if digit.axis not in partial:
            return digit
        start, length = starts[digit.axis], x.shape[digit.axis]
        return digit._replace(axis=f"lookup {start.identity} of {length}")

    form = move_digits(form, move)
    return [
        Value(
            shapes[0],
            form,
            is_zero_or_inf=x.is_zero_or_inf,
            depends_on=dependencies(operands),
        )
    ]


@rule("dynamic_update_slice")
def _dynamic_update_slice(context, params, operands, shapes):
    x, update, *_ = operands
    form, new = x.form, update.form
    for axis in range(x.rank):
        if update.shape[axis] != x.shape[axis]:
            form = context.require_uniform(form, axis)
            new = context.require_uniform(new, axis)
    form = context.unify(x.replace(form=form), update.replace(form=new))
    every = x.is_zero_or_inf and update.is_zero_or_inf
    return [
        Value(
            shapes[0],
            form,
            is_zero_or_inf=every,
            depends_on=dependencies(operands),
        )
    ]


@rule(
    "scatter",
    "scatter-add",
    "scatter-sub",
    "scatter-max",
    "scatter-min",
)
def _scatter(context, params, operands, shapes):
    x, _, updates = operands
    place = _aligned(params["dimension_numbers"], x, updates)
    old, new = x.form, updates.form
    for axis in set(range(x.rank)) - set(place.values()):
        old = context.require_uniform(old, axis)
    for axis in set(range(updates.rank)) - set(place):
        new = context.require_uniform(new, axis)
    new = move_axes(context.equations.reduce(new), place)
    form = context.unify(
        x.replace(form=old), updates.replace(form=new, shape=x.shape)
    )
    every = x.is_zero_or_inf and updates.is_zero_or_inf
    return [
        Value(
            shapes[0],
            form,
            is_zero_or_inf=every,
            depends_on=dependencies(operands),
        )
    ]


def _aligned(numbers, x: Value, updates: Value) -> dict[int, int]:
    """Return the axes of updates along which they meet x element by element."""
    gone = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    kept = [a for a in range(x.rank) if a not in gone]
    window = zip(numbers.update_window_dims, kept, strict=True)
    # A window as long as the axis has one place, or is dropped.
    place = {a: b for a, b in window if updates.shape[a] == x.shape[b]}
    batch = [
        a for a in range(updates.rank) if a not in numbers.update_window_dims
    ]
    for a, b in zip(
        numbers.scatter_indices_batching_dims,
        numbers.operand_batching_dims,
        strict=True,
    ):
        place[batch[a]] = b
    return place


@rule("scatter-mul")
def _scatter_multiply(context, params, operands, shapes):
    x, _, factors = operands
    context.require_invariant(
        factors, "mixture", "some are multiplied by what scales"
    )
    return [
        Value(
            shapes[0],
            x.form,
            is_zero_or_inf=x.is_zero_or_inf,
            depends_on=dependencies(operands),
        )
    ]


@rule("iota")
def _iota(context, params, operands, shapes):
    flat = frozenset(range(len(shapes[0]))) - {params["dimension"]}
    return [Value(shapes[0], constant_axes=flat)]
