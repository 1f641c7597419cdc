"""Comparisons, bounds and choices between arrays, element by element.

Some of them guard a norm against zero, or a value against infinities, and have
no effect on weights that are not zero.
"""

import math
from collections.abc import Sequence
from typing import Any

from psi_optax.invariance.analysis.context import Context
from psi_optax.invariance.analysis.linear_forms import ZERO, minus
from psi_optax.invariance.analysis.rules.elementwise import elementwise, folded
from psi_optax.invariance.analysis.rules.table import Call, rule
from psi_optax.invariance.analysis.values import LARGEST, Moment, Offset, Value


@rule("complex")
def _complex(call: Call) -> list[Value]:
    form = call.context.unify_all(call.operands)
    return [elementwise(call.operands, call.shape, form)]


@rule("atan2")
def _angle(call: Call) -> list[Value]:
    call.context.unify_all(call.operands)
    return [elementwise(call.operands, call.shape, ZERO)]


# -- bounds ------------------------------------------------------------------


@rule("max", "min")
def _extremum(call: Call) -> list[Value]:
    context, operands = call.context, call.operands
    is_max = context.primitive == "max"
    known = folded(max if is_max else min, call)
    if known is not None:
        return [known]
    # A lower bound above zero keeps a norm from vanishing.
    acting = _without_ignored(context, operands, 1 if is_max else -1)
    return [elementwise(operands, call.shape, context.unify_all(acting))]


@rule("clamp")
def _clamp(call: Call) -> list[Value]:
    context, [low, x, high] = call.context, call.operands
    acting = [
        *_without_ignored(context, [low, x], 1),
        *_without_ignored(context, [x, high], -1),
    ]
    form = context.unify_all(acting)
    return [elementwise(call.operands, call.shape, form)]


def _without_ignored(
    context: Context, operands: Sequence[Value], sign: int
) -> list[Value]:
    """Return operands without numbers that do not act beside scaled ones.

    Args:
        context: the analysis.
        operands: two operands of a maximum or minimum.
        sign: of the numbers that are ignored if small: 1 for a maximum, -1 for
            a minimum. Large ones of the other sign are ignored as well.
    """
    scaled = [
        value
        for value in operands
        if value.number is None and context.equations.reduce(value.form)
    ]
    if not scaled:
        return list(operands)
    return [
        value
        for value in operands
        if value.number is None
        or not _is_ignored(context, scaled[0], value, sign)
    ]


def _is_ignored(context: Context, x: Value, bound: Value, sign: int) -> bool:
    """Check that a bound is too small, or too wide, to act on a value."""
    if bound.number is not None and bound.number * sign > 0:
        return context.ignore_epsilon(x, bound.number)
    if bound.const is None or not math.isfinite(bound.const):
        return False
    return context.ignore_bound(x, bound.const)


# -- comparisons -------------------------------------------------------------

_MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}
# The result of comparing a value that is not negative with a bound, where the
# value is zero: 1 for true, -1 for false.
_AT_ZERO = {"eq": 1, "ne": -1, "le": 1, "lt": 1, "gt": -1, "ge": -1}


@rule("eq", "ne", "lt", "le", "gt", "ge")
def _compare(call: Call) -> list[Value]:
    known = _test(call.context, call.operands)
    if known is None:
        call.context.unify_all(call.operands)
        known = {}
    return [elementwise(call.operands, call.shape, ZERO, depends_on=0, **known)]


def _test(context: Context, operands: Sequence[Value]) -> dict[str, Any] | None:
    """Return the attributes of a test for zeros or infinities.

    A norm that is not larger than an epsilon counts as zero. Returns None for
    other comparisons.
    """
    name, [x, bound] = context.primitive, operands
    if x.number is not None:
        x, bound = bound, x
        name = _MIRRORED.get(name, name)
    number = bound.number
    if number is None or x.const is not None:
        return None
    zero_test, is_exact = _AT_ZERO[name], name in ("eq", "ne")
    if bound.const is not None and math.isinf(number) and is_exact:
        return {"zero_test": zero_test, "tested_for_inf": x.identity}
    norm = _norm(x.moment)
    if bound.const == 0 and (is_exact or (norm and name in ("le", "gt"))):
        # All weights of a group are hardly zero; one weight may be.
        if x.nonzero == 2:
            return {"zero_test": zero_test}
        known = {"zero_test": zero_test, "tested_norm": norm}
        return known if norm else None
    # The square of one element is no norm: it may be small for many inputs.
    scales = norm and norm.axes and context.equations.reduce(x.form)
    is_bound = scales and number > 0 and not is_exact
    if is_bound and context.ignore_epsilon(x, number):
        return {"zero_test": zero_test}
    return None


def _norm(moment: Moment | None) -> Moment | None:
    """Return the moment of a power of a sum of squares; None for others."""
    is_norm = moment is not None and moment.inner == 2 and moment.outer > 0
    return moment if is_norm else None


# -- choices -----------------------------------------------------------------


@rule("select_n")
def _select(call: Call) -> list[Value]:
    context, [predicate, *cases] = call.context, call.operands
    if predicate.tested_for_inf is not None:
        cases = _without_largest(predicate, cases)
    elif predicate.zero_test and len(cases) == 2:
        return [_select_by_zero_test(call)]
    form = context.unify_all(cases)
    return [elementwise(call.operands, call.shape, form)]


def _usual_first(predicate: Value, cases: list[Value]) -> list[Value]:
    """Return two cases, first that for neither zeros nor infinities."""
    return cases if predicate.zero_test > 0 else cases[::-1]


def _without_largest(predicate: Value, cases: list[Value]) -> list[Value]:
    """Drop the largest finite number where it replaces infinities.

    As in `jnp.nan_to_num`. Another number in place of an infinity, or
    of NaN, does not scale as the array does.
    """
    usual, other = _usual_first(predicate, cases)
    is_largest = other.const is not None and abs(other.const) >= LARGEST
    if is_largest and predicate.tested_for_inf is usual.identity:
        return [usual]
    return cases


def _select_by_zero_test(call: Call) -> Value:
    """Return the usual case, where the other is chosen at zeros only."""
    context, operands, shape = call.context, call.operands, call.shape
    predicate, *cases = operands
    usual, other = _usual_first(predicate, cases)
    norm, zero = predicate.tested_norm, other.is_zero_or_inf
    if norm is not None and usual.is_zero_or_inf:
        # Zeros scale in every way; the other case may not be zero.
        form = context.unify_all(cases)
        return elementwise(operands, shape, form, is_zero_or_inf=zero)
    found = elementwise(
        operands,
        shape,
        usual.form,
        is_zero_or_inf=usual.is_zero_or_inf,
        # What is tested is never zero, and the result is the usual case.
        nonzero=usual.nonzero if norm is None else 0,
    )
    if norm is None or zero:
        return found
    # The norm may be zero: an array that is divided by the result decides.
    difference = context.equations.reduce(minus(other.form, usual.form))
    reason = context.mixture_reason(usual, other)
    offset = Offset(
        difference, frozenset(), other.depends_on, usual.form, reason, norm
    )
    return found.replace(offsets=(offset,) if difference else ())
