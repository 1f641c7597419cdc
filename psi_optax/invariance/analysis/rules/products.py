"""Products, quotients and powers of arrays, element by element."""

import math
import operator
from fractions import Fraction

from psi_optax.invariance.analysis.linear_forms import (
    ZERO,
    minus,
    plus,
    times,
)
from psi_optax.invariance.analysis.rules.elementwise import elementwise, folded
from psi_optax.invariance.analysis.rules.table import Call, rule, rule_by_parts
from psi_optax.invariance.analysis.values import Moment, Shape, Value


@rule("mul", keeps_parts=True)
@rule_by_parts
def _multiply(call: Call) -> list[Value]:
    context, [a, b] = call.context, call.operands
    known = folded(operator.mul, call)
    if known is not None:
        return [known]
    if a.identity is b.identity and a.shape == b.shape:
        return [_squared(context.resolve_guards(a))]
    for one, number in ((a, b.const), (b, a.const)):
        if number and math.isfinite(number):
            return [multiplied(one, number, call.shape)]
    a, b = context.resolve_offsets(a), context.resolve_offsets(b)
    zero = a.is_zero_or_inf or b.is_zero_or_inf
    form = ZERO if zero else plus(a.form, b.form)
    return [elementwise([a, b], call.shape, form, is_zero_or_inf=zero)]


@rule("div", keeps_parts=True)
@rule_by_parts
def _divide(call: Call) -> list[Value]:
    context, [a, b] = call.context, call.operands
    known = folded(_quotient, call)
    if known is not None:
        return [known]
    if b.const and math.isfinite(b.const):
        return [multiplied(a, 1 / b.const, call.shape)]
    b = _without_guards_of(a, b)
    a, b = context.resolve_offsets(a), context.resolve_offsets(b)
    form = ZERO if a.is_zero_or_inf else minus(a.form, b.form)
    zero = a.const == 0
    return [elementwise([a, b], call.shape, form, is_zero_or_inf=zero)]


def _without_guards_of(numerator: Value, denominator: Value) -> Value:
    """Return a denominator without guards of a norm of the numerator.

    Where that norm is zero the numerator is zero, and so is the quotient.
    """
    kept = [
        o
        for o in denominator.offsets
        if o.guard is None
        or o.guard.of is not numerator.identity
        or not o.guard.is_aligned(numerator.rank)
    ]
    return denominator.replace(offsets=tuple(kept))


def _quotient(a: float, b: float) -> float:
    """Divide numbers, unless they may be integers with a rounded quotient."""
    whole = a == int(a) and b == int(b)
    if whole and a % b:
        raise ValueError
    return a / b


@rule("neg", keeps_offsets=True)
def _negate(call: Call) -> list[Value]:
    [x] = call.operands
    const = None if x.const is None else -x.const
    return [multiplied(x, -1.0, call.shape).replace(const=const)]


def multiplied(value: Value, number: float, shape: Shape) -> Value:
    """Multiply a value by a known number other than zero.

    Division by the count makes a mean of a sum.
    """
    moment = value.moment
    if moment is not None:
        is_mean = abs(number * moment.count - 1) < 3e-7
        moment = moment._replace(count=1) if is_mean else None
    value = value if moment else value.without_moment()
    return elementwise(
        [value],
        shape,
        value.form,
        is_zero_or_inf=value.is_zero_or_inf,
        depends_on=value.depends_on,
        offsets=value.offsets,
        moment=moment,
        nonzero=value.nonzero,
    )


@rule("square", keeps_offsets=True)
def _square(call: Call) -> list[Value]:
    return [_squared(call.context.resolve_guards(call.operands[0]))]


@rule("integer_pow", keeps_offsets=True)
def _integer_power(call: Call) -> list[Value]:
    context, [x] = call.context, call.operands
    if call.params["y"] == 2:
        return [_squared(context.resolve_guards(x))]
    return [_powered(context.resolve_offsets(x), Fraction(call.params["y"]))]


_ROOTS = {
    "sqrt": Fraction(1, 2),
    "rsqrt": Fraction(-1, 2),
    "cbrt": Fraction(1, 3),
    "reciprocal": Fraction(-1),
}


@rule(*_ROOTS)
def _root(call: Call) -> list[Value]:
    return [_powered(call.operands[0], _ROOTS[call.context.primitive])]


@rule("pow")
def _power(call: Call) -> list[Value]:
    base, exponent = call.operands
    if exponent.const is not None and math.isfinite(exponent.const):
        power = Fraction(exponent.const).limit_denominator(64)
        if abs(float(power) - exponent.const) < 6e-8 * abs(exponent.const):
            return [_powered(base.replace(shape=call.shape), power)]
    for value in call.operands:
        text = "`pow` of scaled values"
        call.context.require_invariant(value, "nonlinear", text)
    return [elementwise(call.operands, call.shape, ZERO)]


def _squared(value: Value) -> Value:
    moment, positions = value.moment, tuple(range(value.rank))
    if moment is None:
        moment = Moment(value.identity, frozenset(), 2, 1, 1, positions)
    elif (moment.inner, moment.outer, moment.count) == (1, 1, 1):
        moment = moment._replace(outer=2)
    else:
        value, moment = value.without_moment(), None
    # The offsets are part of a polynomial now: only a variance cancels them.
    return Value(
        value.shape,
        times(value.form, 2),
        is_zero_or_inf=value.is_zero_or_inf,
        const=_number_to(value.const, 2.0),
        constant_axes=value.constant_axes,
        depends_on=value.depends_on,
        offsets=value.offsets,
        moment=moment,
        nonzero=value.nonzero,
    )


def _powered(value: Value, power: Fraction) -> Value:
    is_positive = value.const is not None and value.const > 0
    moment = value.moment
    if moment is not None and moment.outer == 1 and power > 0:
        moment = moment._replace(outer=power)
    else:
        moment = None
    return elementwise(
        [value],
        value.shape,
        times(value.form, power),
        is_zero_or_inf=value.is_zero_or_inf and power > 0,
        const=_number_to(value.const, float(power)) if is_positive else None,
        nonzero=value.nonzero,
        moment=moment,
    )


def _number_to(number: float | None, power: float) -> float | None:
    """Return a power of a number; None if it overflows."""
    if number is None:
        return None
    try:
        return number**power
    except OverflowError:
        return None
