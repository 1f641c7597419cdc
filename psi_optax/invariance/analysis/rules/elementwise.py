"""Arithmetic of arrays of one shape, element by element."""

import math
import operator
from collections.abc import Callable
from fractions import Fraction

import jax.numpy as jnp

from psi_optax.invariance.analysis.linear_forms import (
    Axis,
    Form,
    minus,
    plus,
    times,
)
from psi_optax.invariance.analysis.rules.table import (
    by_parts,
    dependencies,
    rule,
)
from psi_optax.invariance.analysis.values import (
    LARGEST,
    Context,
    Moment,
    Offset,
    Stop,
    Value,
)


def _flat(value: Value, shape: tuple[int, ...]) -> frozenset[Axis]:
    everything = frozenset(range(len(shape)))
    if value.rank == 0 or value.const is not None:
        return value.constant_axes | everything
    # An axis of length 1 is stretched to that of the result.
    stretched = {a for a, n in enumerate(value.shape) if n == 1 != shape[a]}
    return value.constant_axes | stretched


def result(operands, shape, form: Form, **known) -> Value:
    """The value of an elementwise function of the operands."""
    flats = [_flat(value, shape) for value in operands if value.const is None]
    everything = frozenset(range(len(shape)))
    flat = frozenset.intersection(*flats) if flats else everything
    known.setdefault("depends_on", dependencies(operands))
    return Value(shape, form, constant_axes=flat, **known)


def _constant(function: Callable, operands, shape) -> Value | None:
    """The result if it is a number that is known."""
    numbers = [value.const for value in operands]
    if any(number is None for number in numbers):
        return None
    try:
        number = function(*numbers)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return constant(number, shape)


def constant(number: float, shape: tuple[int, ...]) -> Value:
    """An array that is everywhere the same, known, number."""
    every = number == 0 or not math.isfinite(number)
    flat = frozenset(range(len(shape)))
    return Value(shape, is_zero_or_inf=every, const=number, constant_axes=flat)


# -- sums -----------------------------------------------------------------


@rule("add", "add_any", keeps_offsets=True)
def _add(context, params, operands, shapes):
    [a, b] = operands
    return [_sum(context, a, b, shapes[0], operator.add)]


@rule("sub", keeps_offsets=True)
def _sub(context, params, operands, shapes):
    [a, b] = operands
    special = _centered(context, a, b) or _variance(context, a, b)
    return [special or _sum(context, a, b, shapes[0], operator.sub)]


def added(context: Context, a: Value, b: Value) -> Value:
    """Return the sum of two arrays of one shape."""
    return _sum(context, a, b, a.shape, operator.add)


def _sum(context: Context, a: Value, b: Value, shape, function) -> Value:
    known = _constant(function, [a, b], shape)
    if known is not None:
        return known
    if a.is_zero_or_inf or b.is_zero_or_inf:
        one, other = (b, a) if a.is_zero_or_inf else (a, b)
        one = one.replace(
            shape=shape,
            constant_axes=_flat(one, shape),
            depends_on=one.depends_on | dependencies([other]),
            offsets=(*one.offsets, *_moved_to(context, one, other)),
        )
        # 0 + x is x; 0 - x is not.
        negative = a.is_zero_or_inf and function is operator.sub
        return _scaled(one, -1.0, shape) if negative else one
    for one, other in ((a, b), (b, a)):
        if context.ignore_epsilon(one, other.number):
            return result([a, b], shape, context.resolve_offsets(one).form)
    a, b = a.without_moment(), b.without_moment()
    for one, other in ((a, b), (b, a)):
        if _is_flatter(context, other, one, shape):
            return _with_offset(context, one, other, shape)
    form = context.unify(a, b)
    offsets = context.merge_offsets((*a.offsets, *b.offsets))
    known = {"depends_on": a.depends_on | b.depends_on, "offsets": offsets}
    return result([a, b], shape, form, **known)


def _moved_to(context: Context, one: Value, other: Value) -> tuple[Offset, ...]:
    """Return the offsets of an array of zeros, as those of what it is added to.

    They have to scale as this does.
    """
    moved = []
    for offset in other.offsets:
        form = plus(offset.difference, offset.rest)
        difference = context.equations.reduce(minus(form, one.form))
        moved.append(offset._replace(difference=difference, rest=one.form))
    return tuple(moved)


def _constant_axes(context: Context, value: Value, shape) -> frozenset[Axis]:
    """Return the axes along which a term is constant, of the mesh as well."""
    flat = _flat(value, shape)
    return flat if value.const is None else flat | context.mesh.keys()


def _is_flatter(context: Context, a: Value, b: Value, shape) -> bool:
    """Return whether a term is constant along more axes than another.

    Axes of the mesh decide where those of the arrays are equal.
    """
    more, less = (_constant_axes(context, x, shape) for x in (a, b))
    arrays = [{x for x in axes if isinstance(x, int)} for axes in (less, more)]
    return less < more if arrays[0] == arrays[1] else arrays[0] < arrays[1]


def _with_offset(context: Context, a: Value, b: Value, shape) -> Value:
    """A sum whose second term may yet cancel against its mean."""
    b = context.resolve_offsets(b)
    difference = context.equations.reduce(minus(b.form, a.form))
    reason = context.mixture_reason(a, b)
    flat = _constant_axes(context, b, shape)
    offset = Offset(difference, flat, b.depends_on, a.form, reason)
    offsets = a.offsets
    if difference or b.depends_on:
        offsets = (*offsets, offset)
    return result(
        [a, b], shape, a.form, depends_on=a.depends_on, offsets=offsets
    )


def _centered(context: Context, x: Value, mean: Value) -> Value | None:
    """X minus its mean, in which constant offsets cancel."""
    m = mean.moment
    if m is None or m.of != x.identity or (m.inner, m.outer) != (1, 1):
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
    """The mean square minus the square of the mean: the same holds."""
    m, n = a.moment, b.moment
    if m is None or n is None or (m.inner, m.outer) != (2, 1):
        return None
    if n != m._replace(inner=1, outer=2) or m.count != 1:
        return None
    a = context.subtract_mean(a, m.axes)
    return Value(
        a.shape,
        a.form,
        constant_axes=a.constant_axes & b.constant_axes,
        depends_on=a.depends_on,
    )


@rule("max", "min")
def _extremum(context, params, operands, shapes):
    largest = context.primitive == "max"
    known = _constant(max if largest else min, operands, shapes[0])
    if known is not None:
        return [known]
    # A lower bound above zero keeps a norm from vanishing; other bounds are
    # what is taken as a rule.
    able = _above(context, operands, 1 if largest else -1)
    return [result(operands, shapes[0], _alike(context, able))]


def _above(context: Context, operands, sign: int) -> list[Value]:
    """The operands without small constants of a sign, which are waived.

    And without large ones of the other sign: bounds that do not act.
    """
    scaled = [
        value
        for value in operands
        if value.number is None and context.equations.reduce(value.form)
    ]
    return [
        value
        for value in operands
        if not (
            scaled
            and value.number is not None
            and _is_passed_over(context, scaled[0], value, sign)
        )
    ]


def _is_passed_over(
    context: Context, x: Value, bound: Value, sign: int
) -> bool:
    """Whether a bound is too small, or too wide, to act on what scales."""
    if bound.number is not None and bound.number * sign > 0:
        return context.ignore_epsilon(x, bound.number)
    if bound.const is None or not math.isfinite(bound.const):
        return False
    return context.ignore_bound(x, bound.const)


def _alike(context: Context, operands) -> Form:
    """The one form of several operands."""
    able = [value for value in operands if not value.is_zero_or_inf]
    first, *others = able or operands
    for other in others:
        first = first.replace(form=context.unify(first, other))
    return first.form


@rule("clamp")
def _clamp(context, params, operands, shapes):
    low, x, high = operands
    able = [*_above(context, [low, x], 1), *_above(context, [x, high], -1)]
    return [result(operands, shapes[0], _alike(context, able))]


@rule("select_n")
def _select(context, params, operands, shapes):
    predicate, *cases = operands
    if predicate.inf_test_of is not None:
        cases = _with_infinity(predicate, cases)
        return [result(operands, shapes[0], _alike(context, cases))]
    if not predicate.zero_test or len(cases) != 2:
        return [result(operands, shapes[0], _alike(context, cases))]
    # What is taken only where something is zero has no say.
    usual, other = cases if predicate.zero_test > 0 else cases[::-1]
    if predicate.tested_norm is not None and usual.is_zero_or_inf:
        # Zeros scale in every way; these may be something else.
        form = _alike(context, cases)
        return [
            result(
                operands, shapes[0], form, is_zero_or_inf=other.is_zero_or_inf
            )
        ]
    found = result(
        operands, shapes[0], usual.form, is_zero_or_inf=usual.is_zero_or_inf
    )
    if predicate.tested_norm is None or other.is_zero_or_inf:
        return [found]
    # A norm may well be zero: then it matters what is divided by it.
    difference = context.equations.reduce(minus(other.form, usual.form))
    reason = context.mixture_reason(usual, other)
    offset = Offset(
        difference,
        frozenset(),
        other.depends_on,
        usual.form,
        reason,
        predicate.tested_norm,
    )
    return [found.replace(offsets=(offset,) if difference else ())]


def _with_infinity(predicate: Value, cases: list[Value]) -> list[Value]:
    """Return the cases with the largest finite number as the infinity it is.

    As `jnp.nan_to_num` puts it where an array is infinite. Another number in
    the place of an infinity, or of NaN, does not scale as the array does.
    """
    usual, other = cases if predicate.zero_test > 0 else cases[::-1]
    is_largest = other.const is not None and abs(other.const) >= LARGEST
    if is_largest and predicate.inf_test_of == usual.identity:
        return [usual]
    return cases


_MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}
# Which comparisons with a bound say that what is not negative is at it.
_AT_BOUND = {"eq": 1, "ne": -1, "le": 1, "lt": 1, "gt": -1, "ge": -1}


@rule("eq", "ne", "lt", "le", "gt", "ge")
def _compare(context, params, operands, shapes):
    known = _guard(context, operands)
    if known is None:
        _alike(context, operands)
        known = {}
    return [result(operands, shapes[0], {}, depends_on=0, **known)]


def _guard(context: Context, operands) -> dict | None:
    """Return what a comparison guards against; None if it is no guard.

    Against zero, and against norms that are not larger than an epsilon.
    """
    name, [x, bound] = context.primitive, operands
    if x.number is not None:
        x, bound = bound, x
        name = _MIRRORED.get(name, name)
    number, moment = bound.number, x.moment
    if number is None or x.const is not None:
        return None
    guards, exact = _AT_BOUND[name], name in ("eq", "ne")
    if bound.const is not None and math.isinf(number) and exact:
        return {"zero_test": guards, "inf_test_of": x.identity}
    is_norm = moment is not None and moment.inner == 2 and moment.outer > 0
    if bound.const == 0 and (exact or (is_norm and name in ("le", "gt"))):
        # A group of weights is hardly zero; one of its weights may well be.
        if x.nonzero == 2:
            return {"zero_test": guards}
        return {"zero_test": guards, "tested_norm": moment} if is_norm else None
    # The square of one element is no norm: it may be small for many inputs.
    scales = is_norm and moment.axes and context.equations.reduce(x.form)
    if (
        scales
        and number > 0
        and not exact
        and context.ignore_epsilon(x, number)
    ):
        return {"zero_test": guards}
    return None


@rule("complex")
def _complex(context, params, operands, shapes):
    return [result(operands, shapes[0], _alike(context, operands))]


@rule("atan2")
def _atan2(context, params, operands, shapes):
    _alike(context, operands)
    return [result(operands, shapes[0], {})]


# -- products -------------------------------------------------------------


@rule("mul", keeps_parts=True)
@by_parts
def _mul(context, params, operands, shapes):
    [a, b] = operands
    known = _constant(operator.mul, operands, shapes[0])
    if known is not None:
        return [known]
    if a.identity == b.identity and a.shape == b.shape:
        return [_squared(context.resolve_guards(a))]
    for one, number in ((a, b.const), (b, a.const)):
        if number and math.isfinite(number):
            return [_scaled(one, number, shapes[0])]
    a, b = context.resolve_offsets(a), context.resolve_offsets(b)
    every = a.is_zero_or_inf or b.is_zero_or_inf
    form = {} if every else plus(a.form, b.form)
    return [result([a, b], shapes[0], form, is_zero_or_inf=every)]


@rule("div", keeps_parts=True)
@by_parts
def _div(context, params, operands, shapes):
    [a, b] = operands
    known = _constant(_quotient, operands, shapes[0])
    if known is not None:
        return [known]
    if b.const and math.isfinite(b.const):
        return [_scaled(a, 1 / b.const, shapes[0])]
    b = _unguarded(a, b)
    a, b = context.resolve_offsets(a), context.resolve_offsets(b)
    form = {} if a.is_zero_or_inf else minus(a.form, b.form)
    return [result([a, b], shapes[0], form, is_zero_or_inf=a.const == 0)]


def _unguarded(a: Value, b: Value) -> Value:
    """Return a denominator without its guards of a norm of the numerator.

    Where that norm is zero the numerator is, and so is the quotient.
    """
    kept = [
        o
        for o in b.offsets
        if o.guard is None
        or o.guard.of != a.identity
        or not o.guard.is_aligned(a.rank)
    ]
    return b.replace(offsets=tuple(kept))


def _quotient(a: float, b: float) -> float:
    """Of numbers that may be integers, whose quotient is rounded."""
    whole = a == int(a) and b == int(b)
    if whole and a % b:
        raise ValueError
    return a / b


def _scaled(value: Value, number: float, shape) -> Value:
    """A value times a number that is known, and not zero."""
    moment = value.moment
    if moment is not None:
        whole = abs(number * moment.count - 1) < 3e-7
        moment = moment._replace(count=1) if whole else None
    value = value if moment else value.without_moment()
    return result(
        [value],
        shape,
        value.form,
        is_zero_or_inf=value.is_zero_or_inf,
        depends_on=value.depends_on,
        offsets=value.offsets,
        moment=moment,
        nonzero=value.nonzero,
    )


def _squared(value: Value) -> Value:
    moment, identity = value.moment, tuple(range(value.rank))
    if moment is None:
        moment = Moment(value.identity, frozenset(), 2, 1, 1, identity)
    elif (moment.inner, moment.outer, moment.count) == (1, 1, 1):
        moment = moment._replace(outer=2)
    else:
        value, moment = value.without_moment(), None
    # An offset is part of a polynomial now, of which only a variance gets rid.
    return Value(
        value.shape,
        times(value.form, 2),
        is_zero_or_inf=value.is_zero_or_inf,
        const=_raised(value.const, 2.0),
        constant_axes=value.constant_axes,
        depends_on=value.depends_on,
        offsets=value.offsets,
        moment=moment,
        nonzero=value.nonzero,
    )


@rule("square", keeps_offsets=True)
def _square(context, params, operands, shapes):
    return [_squared(context.resolve_guards(operands[0]))]


@rule("integer_pow", keeps_offsets=True)
def _integer_pow(context, params, operands, shapes):
    if params["y"] == 2:
        return [_squared(context.resolve_guards(operands[0]))]
    return [_power(context.resolve_offsets(operands[0]), Fraction(params["y"]))]


@rule("sqrt", "rsqrt", "cbrt", "reciprocal")
def _root(context, params, operands, shapes):
    powers = {
        "sqrt": (1, 2),
        "rsqrt": (-1, 2),
        "cbrt": (1, 3),
        "reciprocal": (-1, 1),
    }
    return [_power(operands[0], Fraction(*powers[context.primitive]))]


@rule("pow")
def _pow(context, params, operands, shapes):
    base, exponent = operands
    if exponent.const is not None and math.isfinite(exponent.const):
        power = Fraction(exponent.const).limit_denominator(64)
        if abs(float(power) - exponent.const) < 6e-8 * abs(exponent.const):
            return [_power(base.replace(shape=shapes[0]), power)]
    for value in operands:
        context.require_invariant(value, "nonlinear", "`pow` of what scales")
    return [result(operands, shapes[0], {})]


def _raised(number: float | None, power: float) -> float | None:
    """Return a power of a number; None if it is beyond all numbers."""
    if number is None:
        return None
    try:
        return number**power
    except OverflowError:
        return None


def _power(value: Value, power: Fraction) -> Value:
    positive = value.const is not None and value.const > 0
    const = _raised(value.const, float(power)) if positive else None
    moment = value.moment
    if moment is not None and moment.outer == 1 and power > 0:
        moment = moment._replace(outer=power)
    else:
        moment = None
    return result(
        [value],
        value.shape,
        times(value.form, power),
        is_zero_or_inf=value.is_zero_or_inf and power > 0,
        const=const,
        nonzero=value.nonzero,
        moment=moment,
    )


# -- functions of one array -----------------------------------------------


@rule("neg", keeps_offsets=True)
def _neg(context, params, operands, shapes):
    [x] = operands
    const = None if x.const is None else -x.const
    return [_scaled(x, -1.0, shapes[0]).replace(const=const)]


@rule("abs", "reduce_precision", "real", "imag", "conj")
def _same_degree(context, params, operands, shapes):
    [x] = operands
    const = None if x.const is None else abs(x.const)
    if context.primitive != "abs":
        const = x.const
    return [
        result(
            [x], shapes[0], x.form, is_zero_or_inf=x.is_zero_or_inf, const=const
        )
    ]


@rule("convert_element_type", keeps_parts=True)
def _convert(context, params, operands, shapes):
    [x] = operands
    if jnp.issubdtype(params["new_dtype"], jnp.inexact):
        return [x]
    x = context.require_invariant(x, "nonlinear", "a conversion to integers")
    return [
        Value(
            x.shape,
            is_zero_or_inf=x.const == 0,
            const=x.const,
            constant_axes=x.constant_axes,
            depends_on=context.without_gradient(x.depends_on),
        )
    ]


@rule(
    "copy",
    "optimization_barrier",
    "sharding_constraint",
    "reshard",
    "pvary",
    "layout_constraint",
    "name",
    "device_put",
    "reduced_vary_cast",
    "reduced_vary_cast_p",
    "vary_unreduced_cast",
    "vary_unreduced_cast_p",
    "with_memory_space_constraint",
    keeps_parts=True,
)
def _identity(context, params, operands, shapes):
    return list(operands)


@rule("stop_gradient", keeps_offsets=True)
def _stop_gradient(context, params, operands, shapes):
    x = operands[0].without_moment()
    context.stops.append(Stop(x.form, context.site, "stop_gradient"))
    offsets = tuple(
        o._replace(depends_on=context.without_gradient(o.depends_on))
        for o in x.offsets
    )
    return [
        Value(
            x.shape,
            x.form,
            is_zero_or_inf=x.is_zero_or_inf,
            const=x.const,
            constant_axes=x.constant_axes,
            depends_on=context.without_gradient(x.depends_on),
            offsets=offsets,
        )
    ]


@rule("sign", "is_finite")
def _no_degree(context, params, operands, shapes):
    return [result(operands, shapes[0], {}, depends_on=0)]
