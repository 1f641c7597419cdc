"""Sums and differences of arrays, and means that are subtracted."""

import operator

from psi_optax.invariance.analysis.context import Context
from psi_optax.invariance.analysis.index_digits import (
    Axis,
)
from psi_optax.invariance.analysis.linear_forms import (
    minus,
    plus,
)
from psi_optax.invariance.analysis.rules.elementwise import (
    elementwise,
    folded,
    stretched_axes,
)
from psi_optax.invariance.analysis.rules.products import multiplied
from psi_optax.invariance.analysis.rules.table import Call, rule
from psi_optax.invariance.analysis.values import (
    Offset,
    Shape,
    Value,
    combined_dependencies,
)


@rule("add", "add_any", keeps_offsets=True)
def add(call: Call) -> list[Value]:
    """Add two arrays of one shape."""
    return [folded(operator.add, call) or _sum(call)]


@rule("sub", keeps_offsets=True)
def _subtract(call: Call) -> list[Value]:
    context, [a, b] = call.context, call.operands
    special = _centered(context, a, b) or _variance(context, a, b)
    return [special or folded(operator.sub, call) or _sum(call)]


def _sum(call: Call) -> Value:
    context, [a, b], shape = call.context, call.operands, call.shape
    if a.is_zero_or_inf or b.is_zero_or_inf:
        return _sum_with_zero(call)
    for one, other in ((a, b), (b, a)):
        if context.ignore_epsilon(one, other.number):
            form = context.resolve_offsets(one).form
            return elementwise([a, b], shape, form)
    a, b = a.without_moment(), b.without_moment()
    for one, other in ((a, b), (b, a)):
        if _has_more_constant_axes(context, other, one, shape):
            return _with_offset(context, one, other, shape)
    form = context.unify(a, b)
    offsets = context.merge_offsets((*a.offsets, *b.offsets))
    bits = a.depends_on | b.depends_on
    return elementwise([a, b], shape, form, depends_on=bits, offsets=offsets)


def _sum_with_zero(call: Call) -> Value:
    """Return 0 + x, which is x, or 0 - x, which is not."""
    context, [a, b], shape = call.context, call.operands, call.shape
    one, zero = (b, a) if a.is_zero_or_inf else (a, b)
    one = one.replace(
        shape=shape,
        constant_axes=stretched_axes(one, shape),
        depends_on=one.depends_on | combined_dependencies([zero]),
        offsets=(*one.offsets, *_moved_offsets(context, zero, one)),
    )
    is_negative = a.is_zero_or_inf and context.primitive == "sub"
    return multiplied(one, -1.0, shape) if is_negative else one


def _moved_offsets(
    context: Context, zero: Value, one: Value
) -> tuple[Offset, ...]:
    """Return the offsets of zeros as those of the array they are added to."""
    moved = []
    for offset in zero.offsets:
        form = plus(offset.difference, offset.rest)
        difference = context.equations.reduce(minus(form, one.form))
        moved.append(offset._replace(difference=difference, rest=one.form))
    return tuple(moved)


def _with_offset(context: Context, a: Value, b: Value, shape: Shape) -> Value:
    """Return a sum whose second term may still cancel with its mean."""
    b = context.resolve_offsets(b)
    difference = context.equations.reduce(minus(b.form, a.form))
    offset = Offset(
        difference,
        _constant_axes(context, b, shape),
        b.depends_on,
        a.form,
        context.mixture_reason(a, b),
    )
    offsets = a.offsets
    if difference or b.depends_on:
        offsets = (*offsets, offset)
    bits = a.depends_on
    return elementwise([a, b], shape, a.form, depends_on=bits, offsets=offsets)


def _has_more_constant_axes(
    context: Context, a: Value, b: Value, shape: Shape
) -> bool:
    """Check that a term is constant along more axes than another.

    Axes of the mesh decide where those of the arrays are equal.
    """
    more, less = (_constant_axes(context, x, shape) for x in (a, b))
    arrays = [{x for x in axes if isinstance(x, int)} for axes in (less, more)]
    return less < more if arrays[0] == arrays[1] else arrays[0] < arrays[1]


def _constant_axes(
    context: Context, value: Value, shape: Shape
) -> frozenset[Axis]:
    """Return the axes along which a term is constant, of the mesh as well."""
    axes = stretched_axes(value, shape)
    return axes if value.const is None else axes | context.mesh.keys()


def _centered(context: Context, x: Value, mean: Value) -> Value | None:
    """Return x minus its mean, in which offsets cancel; None for others."""
    m = mean.moment
    if m is None or m.of is not x.identity or (m.inner, m.outer) != (1, 1):
        return None
    if m.count != 1 or x.rank != mean.rank or not m.axes:
        return None
    if not m.is_aligned(x.rank):
        return None
    x = context.subtract_mean(x, m.axes)
    return Value(
        x.shape, x.form, constant_axes=x.constant_axes, depends_on=x.depends_on
    )


def _variance(context: Context, a: Value, b: Value) -> Value | None:
    """Return a mean square minus the square of that mean; None for others."""
    m, n = a.moment, b.moment
    if m is None or n is None or (m.inner, m.outer) != (2, 1):
        return None
    if n != m._replace(inner=1, outer=2) or m.count != 1:
        return None
    a = context.subtract_mean(a, m.axes)
    axes = a.constant_axes & b.constant_axes
    return Value(a.shape, a.form, constant_axes=axes, depends_on=a.depends_on)
