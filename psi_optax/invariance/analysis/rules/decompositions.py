"""Decompositions of matrices, which lie along the last two axes."""

from fractions import Fraction

from psi_optax.invariance.analysis.context import Context
from psi_optax.invariance.analysis.linear_forms import (
    ZERO,
    Form,
    digits_along,
    minus,
    move_axes,
    plus,
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


def _split(
    context: Context, x: Value, rows: int, columns: int
) -> tuple[Form, Form, Form] | None:
    """Return a form as parts along rows, along columns and along neither.

    Returns None if a part is along both.
    """
    parts: tuple[Form, Form, Form] = ({}, {}, {})
    for term, c in context.equations.reduce(x.form).items():
        by_row, by_column = (
            bool(digits_along({term: c}, axis)) for axis in (rows, columns)
        )
        if by_row and by_column:
            return None
        parts[0 if by_row else 1 if by_column else 2][term] = c
    return parts


@rule("cholesky")
def _cholesky(call: Call) -> list[Value]:
    """Decompose into triangles whose rows scale as those of the matrix."""
    context, [x] = call.context, call.operands
    rows, columns = x.rank - 2, x.rank - 1
    parts = _split(context, x, rows, columns)
    swap = {**{a: a for a in range(rows)}, rows: columns, columns: rows}
    if parts is None or move_axes(parts[0], swap) != parts[1]:
        parts = {}, {}, _matrix_form(context, x)
    form = plus(parts[0], times(parts[2], Fraction(1, 2)))
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
    """Divide by matrices, whose rows and columns may have scales."""
    context, [matrix, x] = call.context, call.operands
    if call.params["unit_diagonal"]:
        return call.unknown("a triangle with ones on its diagonal")
    rows, columns = x.rank - 2, x.rank - 1
    parts = _split(context, matrix, rows, columns)
    if parts is None:
        parts = {}, {}, _matrix_form(context, matrix)
    # What the matrix maps to is x, and what it maps from is the result.
    is_left = call.params["left_side"]
    to_rows = is_left != bool(call.params["transpose_a"])
    summed = rows if is_left else columns
    along_x, along_result = (
        move_axes(part, {**{a: a for a in range(rows)}, axis: summed})
        for part, axis in zip(
            parts[:2] if to_rows else parts[1::-1],
            (rows, columns) if to_rows else (columns, rows),
            strict=True,
        )
    )
    form = context.require_uniform(minus(x.form, along_x), summed)
    form = minus(minus(form, along_result), parts[2])
    bits = combined_dependencies(call.operands)
    return [x.derived(call.shape, form).replace(depends_on=bits)]
