"""Run a program on abstract values in place of arrays."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax.invariance import jaxprs
from psi_optax.invariance.analysis import rules
from psi_optax.invariance.analysis.context import Context
from psi_optax.invariance.analysis.control_flow import CONTROL_FLOW
from psi_optax.invariance.analysis.custom_derivatives import (
    check_custom_derivative,
)
from psi_optax.invariance.analysis.liveness import (
    Needed,
    live_equations,
    variables_of,
)
from psi_optax.invariance.analysis.reasons import Program
from psi_optax.invariance.analysis.rules.elementwise import constant
from psi_optax.invariance.analysis.values import (
    Operand,
    Ref,
    Value,
    combined_dependencies,
)


def run(
    context: Context,
    jaxpr: Any,
    operands: Sequence[Operand],
    needed: Needed | None = None,
) -> list[Any]:
    """Return the values of a program's results, of those that are needed.

    Args:
        context: the analysis.
        jaxpr: the program.
        operands: the values of its arguments; refs among them are changed.
        needed: the effects that matter; by default, all results.

    Returns:
        A `Value` for each result, or a `Ref` where it is one.
    """
    inner, constants = jaxprs.open_jaxpr(jaxpr)
    needed = needed or Needed([True] * len(inner.outvars))
    values: dict[Any, Operand] = {
        variable: closed_over_value(variable, array)
        for variable, array in zip(inner.constvars, constants, strict=True)
    }
    values.update(zip(inner.invars, operands, strict=True))
    read_later = variables_of(values.items(), needed.refs)
    live, _ = live_equations(inner, needed.results, read_later)

    def read(atom: Any) -> Operand:
        if jaxprs.is_literal(atom):
            return literal_value(atom.val)
        # An operand that is not needed has no value.
        return values.get(atom) or Value(jaxprs.shape_of(atom))

    program = Program(inner)
    for equation, used, read_later in live:
        refs = [values[variable] for variable in read_later]
        found = _equation(
            context.at(program, equation),
            list(map(read, equation.invars)),
            Needed(used, frozenset(x for x in refs if isinstance(x, Ref))),
        )
        found = map(_without_overflow, equation.outvars, found)
        values.update(zip(equation.outvars, found, strict=True))
    return [
        read(atom) if need else Value(jaxprs.shape_of(atom))
        for atom, need in zip(inner.outvars, needed.results, strict=True)
    ]


def _equation(
    context: Context, operands: list[Any], needed: Needed
) -> list[Any]:
    """Return the values of the results of the equation of a context."""
    assert context.origin is not None
    equation = context.origin.equation
    name = equation.primitive.name
    shapes = [jaxprs.shape_of(variable) for variable in equation.outvars]
    call = rules.Call(context, equation.params, operands, shapes)
    if name in CONTROL_FLOW:
        return CONTROL_FLOW[name](run, call, needed)
    body = jaxprs.called_body(equation)
    if body is None:
        return rules.apply(name, call)
    found = run(context, body, operands, needed)
    if not jaxprs.has_custom_derivative(equation):
        return found
    if not jaxprs.is_defined_by_jax(equation):
        # A mean that cancels in a value need not cancel in its gradient.
        found = [context.merge_parts(x).as_new_array() for x in found]
    bits = combined_dependencies(operands)
    found = [x.replace(depends_on=x.depends_on | bits) for x in found]
    check_custom_derivative(run, call, found)
    return found


# -- values of numbers and arrays --------------------------------------------


def literal_value(number: Any) -> Value:
    """Return the value of a number that is written in the program."""
    if isinstance(number, bool | int | float):
        return constant(float(number), ())
    shape, dtype = tuple(np.shape(number)), getattr(number, "dtype", None)
    is_real = dtype is not None and jax.dtypes.issubdtype(dtype, np.number)
    is_real &= not jax.dtypes.issubdtype(dtype, np.complexfloating)
    if np.size(number) != 1 or not (is_real or dtype == np.bool_):
        return Value(shape)
    return constant(float(np.asarray(number).item()), shape)


def closed_over_value(variable: Any, array: Any) -> Operand:
    """Return the value of an array that the program closes over.

    It is data, whatever its size: a counter or a gate may change.
    """
    if jaxprs.is_ref(variable):
        return Ref(Value(tuple(np.shape(array))))
    return data_value(array)


def data_value(array: Any) -> Value:
    """Return the value of data: the shape, and the number of a scalar."""
    shape, dtype = tuple(np.shape(array)), getattr(array, "dtype", None)
    if math.prod(shape) != 1 or dtype is None:
        return Value(shape)
    if not jnp.issubdtype(dtype, np.floating):
        return Value(shape)
    is_array = isinstance(array, np.ndarray | np.generic | jax.Array)
    if not is_array or isinstance(array, jax.core.Tracer):
        return Value(shape, runtime_number=math.nan)
    number = float(jax.device_get(array).item())
    return Value(shape, runtime_number=number if number > 0 else math.nan)


def _without_overflow(variable: Any, value: Operand) -> Operand:
    """Forget the number that an integer would be if it did not wrap around."""
    if isinstance(value, Ref) or value.const is None:
        return value
    dtype = getattr(variable.aval, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, np.integer):
        return value
    limits = jnp.iinfo(dtype)
    if limits.min <= value.const <= limits.max:
        return value
    return value.replace(const=None, is_zero_or_inf=False)
