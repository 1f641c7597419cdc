"""Functions of one array, element by element, and results of such functions."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from psi_optax.invariance.analysis.index_digits import (
    Axis,
)
from psi_optax.invariance.analysis.linear_forms import (
    ZERO,
    Form,
)
from psi_optax.invariance.analysis.rules.table import Call, rule
from psi_optax.invariance.analysis.values import (
    Shape,
    Value,
    combined_dependencies,
)


def stretched_axes(value: Value, shape: Shape) -> frozenset[Axis]:
    """Return the axes along which an operand of a given shape is constant."""
    if value.rank == 0 or value.const is not None:
        return value.constant_axes | frozenset(range(len(shape)))
    # An axis of length 1 is stretched to that of the result.
    stretched = {a for a, n in enumerate(value.shape) if n == 1 != shape[a]}
    return value.constant_axes | stretched


def elementwise(
    operands: Sequence[Value], shape: Shape, form: Form, **known: Any
) -> Value:
    """Return the value of an elementwise function of some operands.

    Args:
        operands: the operands.
        shape: the shape of the result.
        form: the form of the result.
        known: other attributes of the result.
    """
    arrays = [value for value in operands if value.const is None]
    axes = [stretched_axes(value, shape) for value in arrays]
    everything = frozenset(range(len(shape)))
    constant_axes = frozenset.intersection(*axes) if axes else everything
    known.setdefault("depends_on", combined_dependencies(operands))
    return Value(shape, form, constant_axes=constant_axes, **known)


def constant(number: float, shape: Shape) -> Value:
    """Return an array that is one known number everywhere."""
    return Value(
        shape,
        is_zero_or_inf=number == 0 or not math.isfinite(number),
        const=number,
        constant_axes=frozenset(range(len(shape))),
    )


def folded(function: Callable[..., float], call: Call) -> Value | None:
    """Return a function of known numbers; None if one is not known."""
    numbers = [value.const for value in call.operands]
    if any(number is None for number in numbers):
        return None
    try:
        number = function(*numbers)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return constant(number, call.shape)


@rule("abs", "reduce_precision", "real", "imag", "conj")
def _same_scale(call: Call) -> list[Value]:
    [x] = call.operands
    const = x.const
    if call.context.primitive == "abs" and const is not None:
        const = abs(const)
    zero = x.is_zero_or_inf
    return [
        elementwise([x], call.shape, x.form, is_zero_or_inf=zero, const=const)
    ]


@rule("sign", "is_finite")
def _no_scale(call: Call) -> list[Value]:
    return [elementwise(call.operands, call.shape, ZERO, depends_on=0)]


@rule("convert_element_type", keeps_parts=True)
def _convert(call: Call) -> list[Value]:
    [x] = call.operands
    if jnp.issubdtype(call.params["new_dtype"], jnp.inexact):
        return [x]
    text = "a conversion to integers"
    x = call.context.require_invariant(x, "nonlinear", text)
    return [
        Value(
            x.shape,
            is_zero_or_inf=x.const == 0,
            const=x.const,
            constant_axes=x.constant_axes,
            depends_on=call.context.without_gradient(x.depends_on),
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
def _identity(call: Call) -> list[Value]:
    return list(call.operands)


@rule("stop_gradient", keeps_offsets=True)
def _stop_gradient(call: Call) -> list[Value]:
    context = call.context
    x = call.operands[0].without_moment()
    context.note_custom_gradient(x.form, "stop_gradient")
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
