"""Decompositions of matrices, of those axes that are the last two."""

from fractions import Fraction

from psi_optax.invariance.analysis.linear_forms import ZERO, Form, minus, times
from psi_optax.invariance.analysis.rules.table import (
    dependencies,
    rule,
    unknown,
)
from psi_optax.invariance.analysis.values import Context, Value


@rule("cholesky")
def _cholesky(context, params, operands, shapes):
    [x] = operands
    form = times(_of_matrices(context, x), Fraction(1, 2))
    return [
        Value(
            shapes[0],
            form,
            is_zero_or_inf=x.is_zero_or_inf,
            depends_on=x.depends_on,
        )
    ]


@rule("qr")
def _qr(context, params, operands, shapes):
    """Decompose columns: a direction does not see how long they are."""
    [x] = operands
    columns = context.require_uniform(x.form, x.rank - 2)
    if params["pivoting"]:  # The longest column is the first.
        columns = context.require_uniform(columns, x.rank - 1)
    directions, triangle, *order = shapes
    return [
        Value(directions, depends_on=x.depends_on),
        Value(
            triangle,
            columns,
            is_zero_or_inf=x.is_zero_or_inf,
            depends_on=x.depends_on,
        ),
        *map(Value, order),
    ]


@rule("eigh")
def _eigh(context, params, operands, shapes):
    [x] = operands
    vectors, values = shapes
    form = _of_matrices(context, x)
    return [
        Value(vectors, depends_on=x.depends_on),
        Value(
            values,
            form,
            is_zero_or_inf=x.is_zero_or_inf,
            depends_on=x.depends_on,
        ),
    ]


@rule("svd")
def _svd(context, params, operands, shapes):
    [x] = operands
    values, *vectors = shapes
    form = _of_matrices(context, x)
    return [
        Value(
            values,
            form,
            is_zero_or_inf=x.is_zero_or_inf,
            depends_on=x.depends_on,
        ),
        *(Value(shape, depends_on=x.depends_on) for shape in vectors),
    ]


@rule("triangular_solve")
def _triangular_solve(context, params, operands, shapes):
    """Divide by matrices, whose scale the result has in the denominator."""
    matrix, x = operands
    if params["unit_diagonal"]:
        text = "a triangle with ones on its diagonal"
        return unknown(context, operands, text, shapes)
    summed = x.rank - (2 if params["left_side"] else 1)
    divisor = _of_matrices(context, matrix)
    form = minus(context.require_uniform(x.form, summed), divisor)
    return [
        Value(
            shapes[0],
            form,
            is_zero_or_inf=x.is_zero_or_inf,
            depends_on=dependencies(operands),
        )
    ]


def _of_matrices(context: Context, x: Value) -> Form:
    """Return the form of matrices, each of which has one scale."""
    if x.is_zero_or_inf:
        return ZERO
    form = context.require_uniform(x.form, x.rank - 2)
    return context.require_uniform(form, x.rank - 1)
