"""Arithmetic of arrays of one shape, element by element."""

import math
import operator
from collections.abc import Callable
from fractions import Fraction

import jax.numpy as jnp

from psi_optax.invariance.forms import Axis, Form, minus, plus, times
from psi_optax.invariance.rules.table import by_parts, reach, rule
from psi_optax.invariance.values import (
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
        return value.flat | everything
    # An axis of length 1 is stretched to that of the result.
    stretched = {a for a, n in enumerate(value.shape) if n == 1 != shape[a]}
    return value.flat | stretched


def result(operands, shape, form: Form, **known) -> Value:
    """The value of an elementwise function of the operands."""
    flats = [_flat(value, shape) for value in operands if value.const is None]
    everything = frozenset(range(len(shape)))
    flat = frozenset.intersection(*flats) if flats else everything
    known.setdefault("reach", reach(operands))
    return Value(shape, form, flat=flat, **known)


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
    return Value(shape, every=every, const=number, flat=flat)


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
    if a.every or b.every:
        one, other = (b, a) if a.every else (a, b)
        one = one.but(
            shape=shape,
            flat=_flat(one, shape),
            reach=one.reach | reach([other]),
            offsets=(*one.offsets, *_moved_to(context, one, other)),
        )
        # 0 + x is x; 0 - x is not.
        negative = a.every and function is operator.sub
        return _scaled(one, -1.0, shape) if negative else one
    for one, other in ((a, b), (b, a)):
        if context.waive(one, other.number):
            return result([a, b], shape, context.settle(one).form)
    a, b = a.blurred(), b.blurred()
    for one, other in ((a, b), (b, a)):
        if _is_flatter(context, other, one, shape):
            return _with_offset(context, one, other, shape)
    form = context.alike(a, b)
    offsets = context.joined((*a.offsets, *b.offsets))
    known = {"reach": a.reach | b.reach, "offsets": offsets}
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
    b = context.settle(b)
    difference = context.equations.reduce(minus(b.form, a.form))
    reason = context.mixture(a, b)
    flat = _constant_axes(context, b, shape)
    offset = Offset(difference, flat, b.reach, a.form, reason)
    offsets = a.offsets
    if difference or b.reach:
        offsets = (*offsets, offset)
    return result([a, b], shape, a.form, reach=a.reach, offsets=offsets)


def _centered(context: Context, x: Value, mean: Value) -> Value | None:
    """X minus its mean, in which constant offsets cancel."""
    m = mean.moment
    if m is None or m.of != x.identity or (m.inner, m.outer) != (1, 1):
        return None
    if m.count != 1 or x.rank != mean.rank or not m.axes:
        return None
    if not m.is_aligned(x.rank):
        return None
    x = context.cancel(x, m.axes)
    return Value(x.shape, x.form, flat=x.flat, reach=x.reach)


def _variance(context: Context, a: Value, b: Value) -> Value | None:
    """The mean square minus the square of the mean: the same holds."""
    m, n = a.moment, b.moment
    if m is None or n is None or (m.inner, m.outer) != (2, 1):
        return None
    if n != m._replace(inner=1, outer=2) or m.count != 1:
        return None
    a = context.cancel(a, m.axes)
    return Value(a.shape, a.form, flat=a.flat & b.flat, reach=a.reach)


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
        return context.waive(x, bound.number)
    if bound.const is None or not math.isfinite(bound.const):
        return False
    return context.is_within(x, bound.const)


def _alike(context: Context, operands) -> Form:
    """The one form of several operands."""
    able = [value for value in operands if not value.every]
    first, *others = able or operands
    for other in others:
        first = first.but(form=context.alike(first, other))
    return first.form


@rule("clamp")
def _clamp(context, params, operands, shapes):
    low, x, high = operands
    able = [*_above(context, [low, x], 1), *_above(context, [x, high], -1)]
    return [result(operands, shapes[0], _alike(context, able))]


@rule("select_n")
def _select(context, params, operands, shapes):
    predicate, *cases = operands
    if predicate.infinite is not None:
        cases = _with_infinity(predicate, cases)
        return [result(operands, shapes[0], _alike(context, cases))]
    if not predicate.guards or len(cases) != 2:
        return [result(operands, shapes[0], _alike(context, cases))]
    # What is taken only where something is zero has no say.
    usual, other = cases if predicate.guards > 0 else cases[::-1]
    if predicate.guarded is not None and usual.every:
        # Zeros scale in every way; these may be something else.
        form = _alike(context, cases)
        return [result(operands, shapes[0], form, every=other.every)]
    found = result(operands, shapes[0], usual.form, every=usual.every)
    if predicate.guarded is None or other.every:
        return [found]
    # A norm may well be zero: then it matters what is divided by it.
    difference = context.equations.reduce(minus(other.form, usual.form))
    reason = context.mixture(usual, other)
    offset = Offset(
        difference,
        frozenset(),
        other.reach,
        usual.form,
        reason,
        predicate.guarded,
    )
    return [found.but(offsets=(offset,) if difference else ())]


def _with_infinity(predicate: Value, cases: list[Value]) -> list[Value]:
    """Return the cases with the largest finite number as the infinity it is.

    As `jnp.nan_to_num` puts it where an array is infinite. Another number in
    the place of an infinity, or of NaN, does not scale as the array does.
    """
    usual, other = cases if predicate.guards > 0 else cases[::-1]
    is_largest = other.const is not None and abs(other.const) >= LARGEST
    if is_largest and predicate.infinite == usual.identity:
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
    return [result(operands, shapes[0], {}, reach=0, **known)]


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
        return {"guards": guards, "infinite": x.identity}
    is_norm = moment is not None and moment.inner == 2 and moment.outer > 0
    if bound.const == 0 and (exact or (is_norm and name in ("le", "gt"))):
        # A group of weights is hardly zero; one of its weights may well be.
        if x.alive == 2:
            return {"guards": guards}
        return {"guards": guards, "guarded": moment} if is_norm else None
    # The square of one element is no norm: it may be small for many inputs.
    scales = is_norm and moment.axes and context.equations.reduce(x.form)
    if scales and number > 0 and not exact and context.waive(x, number):
        return {"guards": guards}
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
        return [_squared(context.settle_guards(a))]
    for one, number in ((a, b.const), (b, a.const)):
        if number and math.isfinite(number):
            return [_scaled(one, number, shapes[0])]
    a, b = context.settle(a), context.settle(b)
    every = a.every or b.every
    form = {} if every else plus(a.form, b.form)
    return [result([a, b], shapes[0], form, every=every)]


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
    a, b = context.settle(a), context.settle(b)
    form = {} if a.every else minus(a.form, b.form)
    return [result([a, b], shapes[0], form, every=a.const == 0)]


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
    return b.but(offsets=tuple(kept))


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
    value = value if moment else value.blurred()
    return result(
        [value],
        shape,
        value.form,
        every=value.every,
        reach=value.reach,
        offsets=value.offsets,
        moment=moment,
        alive=value.alive,
    )


def _squared(value: Value) -> Value:
    moment, identity = value.moment, tuple(range(value.rank))
    if moment is None:
        moment = Moment(value.identity, frozenset(), 2, 1, 1, identity)
    elif (moment.inner, moment.outer, moment.count) == (1, 1, 1):
        moment = moment._replace(outer=2)
    else:
        value, moment = value.blurred(), None
    # An offset is part of a polynomial now, of which only a variance gets rid.
    return Value(
        value.shape,
        times(value.form, 2),
        every=value.every,
        const=_raised(value.const, 2.0),
        flat=value.flat,
        reach=value.reach,
        offsets=value.offsets,
        moment=moment,
        alive=value.alive,
    )


@rule("square", keeps_offsets=True)
def _square(context, params, operands, shapes):
    return [_squared(context.settle_guards(operands[0]))]


@rule("integer_pow", keeps_offsets=True)
def _integer_pow(context, params, operands, shapes):
    if params["y"] == 2:
        return [_squared(context.settle_guards(operands[0]))]
    return [_power(context.settle(operands[0]), Fraction(params["y"]))]


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
            return [_power(base.but(shape=shapes[0]), power)]
    for value in operands:
        context.invariant(value, "nonlinear", "`pow` of what scales")
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
        every=value.every and power > 0,
        const=const,
        alive=value.alive,
        moment=moment,
    )


# -- functions of one array -----------------------------------------------


@rule("neg", keeps_offsets=True)
def _neg(context, params, operands, shapes):
    [x] = operands
    const = None if x.const is None else -x.const
    return [_scaled(x, -1.0, shapes[0]).but(const=const)]


@rule("abs", "reduce_precision", "real", "imag", "conj")
def _same_degree(context, params, operands, shapes):
    [x] = operands
    const = None if x.const is None else abs(x.const)
    if context.primitive != "abs":
        const = x.const
    return [result([x], shapes[0], x.form, every=x.every, const=const)]


@rule("convert_element_type", keeps_parts=True)
def _convert(context, params, operands, shapes):
    [x] = operands
    if jnp.issubdtype(params["new_dtype"], jnp.inexact):
        return [x]
    x = context.invariant(x, "nonlinear", "a conversion to integers")
    return [
        Value(
            x.shape,
            every=x.const == 0,
            const=x.const,
            flat=x.flat,
            reach=context.as_values(x.reach),
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
    x = operands[0].blurred()
    context.stops.append(Stop(x.form, context.site, "stop_gradient"))
    offsets = tuple(
        o._replace(reach=context.as_values(o.reach)) for o in x.offsets
    )
    return [
        Value(
            x.shape,
            x.form,
            every=x.every,
            const=x.const,
            flat=x.flat,
            reach=context.as_values(x.reach),
            offsets=offsets,
        )
    ]


@rule("sign", "is_finite")
def _no_degree(context, params, operands, shapes):
    return [result(operands, shapes[0], {}, reach=0)]
