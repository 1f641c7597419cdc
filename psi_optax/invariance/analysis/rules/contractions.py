"""Products summed over axes: matrix products and convolutions."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from psi_optax.invariance.analysis.context import Context
from psi_optax.invariance.analysis.index_digits import (
    Axis,
    Digit,
)
from psi_optax.invariance.analysis.linear_forms import (
    Form,
    move_axes,
    move_index_digits,
    plus,
)
from psi_optax.invariance.analysis.rules.indexing import lookup_axis
from psi_optax.invariance.analysis.rules.table import Call, rule
from psi_optax.invariance.analysis.values import Value, combined_dependencies


def _zero(call: Call) -> list[Value]:
    """Return the product of an array with zeros."""
    bits = combined_dependencies(call.operands)
    return [Value(call.shape, is_zero_or_inf=True, depends_on=bits)]


def _product(call: Call, form: Form) -> list[Value]:
    return [
        Value(call.shape, form, depends_on=combined_dependencies(call.operands))
    ]


def _without_lookups(context: Context, form: Form, axis: int) -> Form:
    """Require a form not to change by indices looked up along an axis."""
    looked_up = [d for t in form for d in t.all_digits if axis in d.over]
    text = "a sum over elements that are looked up"
    return context.require_uniform_in(form, looked_up, text)


# -- matrix products ---------------------------------------------------------


class _Axes(NamedTuple):
    """The axes of two factors in the space of all their products.

    Attributes:
        a: the positions of the axes of the first factor.
        b: those of the second. Axes that are not in the result have names.
        summed: the names of the axes that are summed over.
    """

    a: dict[int, Axis]
    b: dict[int, Axis]
    summed: Collection[str]


def _place_axes(
    factors: Sequence[Value],
    summed: tuple[Sequence[int], Sequence[int]],
    batch: tuple[Sequence[int], Sequence[int]] = ((), ()),
    named: Mapping[int, str] | None = None,
) -> _Axes:
    """Place the axes of two factors: batch axes first, then free axes.

    Args:
        factors: the two arrays.
        summed: the axes of each that are summed over.
        batch: the axes that both have in common.
        named: further axes of the second factor that are not in the result.
    """
    names = [f"summed {k}" for k in range(len(summed[0]))]
    positions: list[dict[int, Axis]] = [
        dict(zip(axes, names, strict=True)) for axes in summed
    ]
    positions[1].update(named or {})
    free = len(batch[0])
    for own, axes, value in zip(positions, batch, factors, strict=True):
        own.update({axis: k for k, axis in enumerate(axes)})
        for axis in range(value.rank):
            if axis not in own:
                own[axis] = free
                free += 1
    return _Axes(positions[0], positions[1], names)


def _contracted(context: Context, a: Form, b: Form, axes: _Axes) -> Form:
    """Return the form of a sum of products, which has no summed axes."""
    forms = []
    for form, positions in ((a, axes.a), (b, axes.b)):
        form = context.equations.reduce(form)
        # An index that is looked up along a summed axis has no place.
        for axis, position in positions.items():
            if isinstance(position, str):
                form = _without_lookups(context, form, axis)
        forms.append(move_axes(form, positions))
    form = plus(*forms)
    for axis in sorted(axes.summed):
        form = context.require_uniform(form, axis)
    return form


@rule("dot_general")
def _dot_general(call: Call) -> list[Value]:
    a, b = call.operands
    if a.is_zero_or_inf or b.is_zero_or_inf:
        return _zero(call)
    axes = _place_axes((a, b), *call.params["dimension_numbers"])
    return _product(call, _contracted(call.context, a.form, b.form, axes))


@rule("ragged_dot_general")
def _ragged_dot(call: Call) -> list[Value]:
    """Multiply each row of the first factor by a matrix of its group."""
    context, [a, b, sizes] = call.context, call.operands
    numbers = call.params["ragged_dot_dimension_numbers"]
    summed, batch = numbers.dot_dimension_numbers
    ragged, group = numbers.lhs_ragged_dimensions, numbers.rhs_group_dimensions
    if any(batch) or len(group) != 1 or set(ragged) & set(summed[0]):
        return call.unknown("no rule for a product of ragged sums")
    if a.is_zero_or_inf or b.is_zero_or_inf:
        return _zero(call)
    axes = _place_axes((a, b), summed, named={group[0]: "group"})
    form = _contracted(context, a.form, b.form, axes)
    # The group of a row is looked up.
    name = lookup_axis(context, sizes, b.shape[group[0]], "rows")
    over = (int(axes.a[ragged[0]]),)
    form = move_index_digits(
        form,
        lambda d: d._replace(axis=name, over=over) if d.axis == "group" else d,
    )
    return _product(call, form)


# -- convolutions ------------------------------------------------------------


@rule("conv_general_dilated")
def _convolution(call: Call) -> list[Value]:
    context, [x, kernel] = call.context, call.operands
    if x.is_zero_or_inf or kernel.is_zero_or_inf:
        return _zero(call)
    if call.params["batch_group_count"] != 1:
        return call.unknown("no rule for a convolution with batch groups")
    numbers = call.params["dimension_numbers"]
    _, channel, *spatial = numbers.lhs_spec
    outputs, inputs, *window = numbers.rhs_spec
    # A window moves over all positions.
    x_form = _uniform(context, x.form, spatial)
    kernel_form = _uniform(context, kernel.form, window)
    x_form = _without_lookups(context, x_form, channel)
    width = kernel.shape[inputs]
    reason = context.reason("shape", "groups of scaled channels")
    x_form = context.equations.cut(x_form, channel, width, reason)
    x_form = _move_channels(call, x_form)
    kernel_form = move_axes(
        context.equations.reduce(kernel_form),
        {inputs: "input", outputs: numbers.out_spec[1]},
    )
    form = context.require_uniform(plus(x_form, kernel_form), "input")
    return _product(call, form)


def _uniform(context: Context, form: Form, axes: Iterable[int]) -> Form:
    for axis in axes:
        form = context.require_uniform(form, axis)
    return form


def _move_channels(call: Call, form: Form) -> Form:
    """Return the form of the input of a convolution along the output's axes.

    The channels of the input are (group, input), those of the output (group,
    output).
    """
    numbers, [_, kernel] = call.params["dimension_numbers"], call.operands
    batch, channel, *_ = numbers.lhs_spec
    outputs, inputs, *_ = numbers.rhs_spec
    out_batch, out_channel, *_ = numbers.out_spec
    groups = call.params["feature_group_count"]
    width, out_width = kernel.shape[inputs], kernel.shape[outputs] // groups

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

    return move_index_digits(form, move)
