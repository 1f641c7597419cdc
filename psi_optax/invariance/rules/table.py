"""The table of rules: how each primitive passes on what scales.

A rule is a function of the context, the equation's parameters, the values of
its operands and the shapes of its results; it asks for what must hold and
returns the results' values. To teach the analysis a primitive, write one:

    @rule("my_primitive")
    def _my_primitive(context, params, operands, shapes):
        ...

A primitive that has none may depend on its operands in any way: these must not
scale.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from psi_optax.invariance.values import Context, Value

Shapes = Sequence[tuple[int, ...]]
Rule = Callable[[Context, Mapping[str, Any], list[Value], Shapes], list[Value]]

RULES: dict[str, Rule] = {}


def rule(*names: str, keeps_offsets: bool = False) -> Callable[[Rule], Rule]:
    """Registers a rule for primitives; by default offsets are settled first."""

    def register(function: Rule) -> Rule:
        def settled(context, params, operands, shapes):
            operands = [context.settle(value) for value in operands]
            return function(context, params, operands, shapes)

        for name in names:
            RULES[name] = function if keeps_offsets else settled
        return function

    return register


def reach(operands: Sequence[Value]) -> int:
    """All parameters through which the gradient of a result may go."""
    found = 0
    for value in operands:
        found |= value.reach
        for offset in value.offsets:
            found |= offset.reach
    return found


def apply(
    context: Context,
    name: str,
    params: Mapping[str, Any],
    operands: list[Value],
    shapes: Shapes,
) -> list[Value]:
    """The values of a primitive's results."""
    if name in RULES:
        return RULES[name](context, params, operands, shapes)
    if name in NONLINEAR:
        kind, text = "nonlinear", f"`{name}` of what scales"
    else:
        kind, text = "unknown", f"no rule for `{name}`"
    for value in operands:
        context.invariant(value, kind, text)
    return [Value(shape, reach=reach(operands)) for shape in shapes]


# Primitives that no scale passes through, which are no gap in the table.
NONLINEAR = frozenset(
    """
    exp exp2 expm1 log log1p logistic tanh sin cos tan asin acos atan sinh cosh
    asinh acosh atanh erf erfc erf_inv lgamma digamma bessel_i0e bessel_i1e
    regularized_incomplete_beta igamma igammac polygamma zeta rem nextafter
    floor ceil round cumprod cumlogsumexp bitcast_convert_type random_gamma
    """.split()  # noqa: SIM905
)
