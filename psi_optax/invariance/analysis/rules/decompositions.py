"""Decompositions of matrices, which lie along the last two axes."""

from fractions import Fraction

from psi_optax.invariance.analysis.context import Context
from psi_optax.invariance.analysis.linear_forms import (
    ZERO,
    Form,
    minus,
    times,
)
from psi_optax.invariance.analysis.rules.table import Call, rule
from psi_optax.invariance.analysis.values import Value, combined_dependencies


def _matrix_form(context: Context, x: Value) -> Form:
    """Return the form of matrices, and require each to have one scale."""
    if x.is_zero_or_inf:
        return ZERO
    form = context.require_uniform(x.form, x.rank - 2)
    return context.require_uniform(form, x.rank - 1)


@rule("cholesky")
def _cholesky(call: Call) -> list[Value]:
    [x] = call.operands
    form = times(_matrix_form(call.context, x), Fraction(1, 2))
    return [x.derived(call.shape, form)]


@rule("qr")
def _qr(call: Call) -> list[Value]:
    """Decompose into directions, which do not scale, and a triangle."""
    context, [x] = call.context, call.operands
    columns = context.require_uniform(x.form, x.rank - 2)
    if call.params["pivoting"]:  # The longest column is the first.
        columns = context.require_uniform(columns, x.rank - 1)
    directions, triangle, *order = call.shapes
    return [
        Value(directions, depends_on=x.depends_on),
        x.derived(triangle, columns),
        *map(Value, order),
    ]


# The position of the eigenvalues, or singular values, among the results.
_VALUES = {"eigh": 1, "svd": 0}


@rule(*_VALUES)
def _spectrum(call: Call) -> list[Value]:
    """Decompose into values, which scale, and vectors, which do not."""
    context, [x] = call.context, call.operands
    form = _matrix_form(context, x)
    results = [Value(shape, depends_on=x.depends_on) for shape in call.shapes]
    values = _VALUES[context.primitive]
    results[values] = x.derived(call.shapes[values], form)
    return results


@rule("triangular_solve")
def _triangular_solve(call: Call) -> list[Value]:
    """Divide by matrices."""
    context, [matrix, x] = call.context, call.operands
    if call.params["unit_diagonal"]:
        return call.unknown("a triangle with ones on its diagonal")
    summed = x.rank - (2 if call.params["left_side"] else 1)
    divisor = _matrix_form(context, matrix)
    form = minus(context.require_uniform(x.form, summed), divisor)
    bits = combined_dependencies(call.operands)
    return [x.derived(call.shape, form).replace(depends_on=bits)]
