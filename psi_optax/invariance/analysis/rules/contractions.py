"""Products summed over axes: matrix products and convolutions."""

from collections.abc import Iterable

from psi_optax.invariance.analysis.linear_forms import (
    Axis,
    Digit,
    Form,
    move_axes,
    move_digits,
    plus,
)
from psi_optax.invariance.analysis.rules.table import (
    dependencies,
    rule,
    unknown,
)
from psi_optax.invariance.analysis.values import Context, Value


def _contracted(
    context: Context,
    a: Form,
    b: Form,
    axes: tuple[dict[int, Axis], dict[int, Axis]],
    summed: Iterable[Axis],
) -> Form:
    """The form of a sum of products.

    Args:
        context: the equations.
        a: the form of one factor.
        b: the form of the other.
        axes: where the axes of the factors are in the space of all products.
        summed: those axes of that space which are summed over.

    Returns:
        The form, which has none of the summed axes.
    """
    summed = set(summed)
    # An index that is looked up along a summed axis cannot be carried over.
    forms = []
    for form, place in zip((a, b), axes, strict=True):
        form = context.equations.reduce(form)
        for axis, target in place.items():
            if isinstance(target, str):
                form = _without_lookups(context, form, axis)
        forms.append(move_axes(form, place))
    form = plus(*forms)
    for axis in sorted(summed, key=repr):
        form = context.require_uniform(form, axis)
    return form


def _without_lookups(context: Context, form: Form, axis: int) -> Form:
    text = "a sum over what is looked up"
    looked_up = [d for t in form for d in t.all_digits if axis in d.over]
    reason = context.reason("shape", text)
    context.equations.require_uniform(form, looked_up, reason)
    return context.equations.reduce(form)


@rule("dot_general")
def _dot_general(context, params, operands, shapes):
    a, b = operands
    (a_summed, b_summed), (a_batch, b_batch) = params["dimension_numbers"]
    if a.is_zero_or_inf or b.is_zero_or_inf:
        return [
            Value(
                shapes[0],
                is_zero_or_inf=True,
                depends_on=dependencies(operands),
            )
        ]
    summed = [f"summed {k}" for k in range(len(a_summed))]
    a_place: dict[int, Axis] = dict(zip(a_summed, summed, strict=True))
    b_place: dict[int, Axis] = dict(zip(b_summed, summed, strict=True))
    free = len(a_batch)
    for place, batch in ((a_place, a_batch), (b_place, b_batch)):
        place.update({axis: k for k, axis in enumerate(batch)})
    for place, value in ((a_place, a), (b_place, b)):
        for axis in range(value.rank):
            if axis not in place:
                place[axis] = free
                free += 1
    form = _contracted(context, a.form, b.form, (a_place, b_place), summed)
    return [Value(shapes[0], form, depends_on=dependencies(operands))]


@rule("conv_general_dilated")
def _convolution(context, params, operands, shapes):
    x, kernel = operands
    if x.is_zero_or_inf or kernel.is_zero_or_inf:
        return [
            Value(
                shapes[0],
                is_zero_or_inf=True,
                depends_on=dependencies(operands),
            )
        ]
    if params["batch_group_count"] != 1:
        text = "no rule for a convolution with batch groups"
        for value in operands:
            context.require_invariant(value, "unknown", text)
        return [Value(shapes[0], depends_on=dependencies(operands))]
    numbers = params["dimension_numbers"]
    batch, channel, *spatial = numbers.lhs_spec
    outputs, inputs, *window = numbers.rhs_spec
    out_batch, out_channel, *_ = numbers.out_spec
    groups = params["feature_group_count"]
    # A window moves over all positions. The channels of the input are
    # (group, input), those of the output (group, output).
    x_form, k_form = x.form, kernel.form
    for axis in spatial:
        x_form = context.require_uniform(x_form, axis)
    for axis in window:
        k_form = context.require_uniform(k_form, axis)
    x_form = _without_lookups(context, x_form, channel)
    width, out_width = kernel.shape[inputs], kernel.shape[outputs] // groups
    reason = context.reason("shape", "groups of scaled channels")
    x_form = context.equations.cut(x_form, channel, width, reason)

    def move(digit: Digit) -> Digit:
        over = tuple(out_batch for _ in digit.over)
        if digit.axis == batch:
            return digit._replace(axis=out_batch)
        if digit.axis != channel:
            return digit._replace(over=over)
        if digit.stride < width:
            return digit._replace(axis="input")
        stride = digit.stride // width * out_width
        return digit._replace(axis=out_channel, stride=stride)

    x_form = move_digits(x_form, move)
    k_form = context.equations.reduce(k_form)
    k_form = move_axes(k_form, {inputs: "input", outputs: out_channel})
    form = context.require_uniform(plus(x_form, k_form), "input")
    return [Value(shapes[0], form, depends_on=dependencies(operands))]


@rule("ragged_dot_general")
def _ragged_dot(context, params, operands, shapes):
    """A matrix for each row of the first factor, by groups of rows."""
    a, b, sizes = operands
    numbers = params["ragged_dot_dimension_numbers"]
    (a_summed, b_summed), batch = numbers.dot_dimension_numbers
    ragged, group = numbers.lhs_ragged_dimensions, numbers.rhs_group_dimensions
    if any(batch) or len(group) != 1 or set(ragged) & set(a_summed):
        text = "no rule for a product of ragged sums"
        return unknown(context, operands, text, shapes)
    if a.is_zero_or_inf or b.is_zero_or_inf:
        return [
            Value(
                shapes[0],
                is_zero_or_inf=True,
                depends_on=dependencies(operands),
            )
        ]
    summed = [f"summed {k}" for k in range(len(a_summed))]
    a_place: dict[int, Axis] = dict(zip(a_summed, summed, strict=True))
    b_place: dict[int, Axis] = dict(zip(b_summed, summed, strict=True))
    b_place[group[0]] = "group"
    free = 0
    for place, value in ((a_place, a), (b_place, b)):
        for axis in range(value.rank):
            if axis not in place:
                place[axis] = free
                free += 1
    form = _contracted(context, a.form, b.form, (a_place, b_place), summed)
    # Which group a row belongs to is looked up.
    name = f"lookup {sizes.identity}.rows of {b.shape[group[0]]}"
    over = (int(a_place[ragged[0]]),)
    form = move_digits(
        form,
        lambda d: d._replace(axis=name, over=over) if d.axis == "group" else d,
    )
    return [Value(shapes[0], form, depends_on=dependencies(operands))]
