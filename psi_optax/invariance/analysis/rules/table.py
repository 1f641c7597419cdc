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

from psi_optax.invariance.analysis.values import Cell, Context, Operand, Value

Shapes = Sequence[tuple[int, ...]]
Rule = Callable[[Context, Mapping[str, Any], list[Any], Shapes], list[Any]]

RULES: dict[str, Rule] = {}


def rule(
    *names: str, keeps_offsets: bool = False, keeps_parts: bool = False
) -> Callable[[Rule], Rule]:
    """Register a rule for primitives.

    Args:
        names: of the primitives.
        keeps_offsets: whether the rule sees offsets, which are settled else.
        keeps_parts: whether it sees the parts of a stack as well.
    """

    def register(function: Rule) -> Rule:
        def settled(context, params, operands, shapes):
            settle = (
                context.merge_parts
                if keeps_offsets
                else context.resolve_offsets
            )
            operands = [
                x if isinstance(x, Cell) else settle(x) for x in operands
            ]
            found = function(context, params, operands, shapes)
            if keeps_offsets:
                return found
            # Results without a gradient depend on their operands all the same.
            depends = context.without_gradient(dependencies(operands))
            return [x.replace(depends_on=x.depends_on | depends) for x in found]

        for name in names:
            RULES[name] = function if keeps_parts else settled
        return function

    return register


def by_parts(function: Rule) -> Rule:
    """Apply a rule to each part of a stack that is its only array."""

    def applied(context, params, operands, shapes):
        stacks = [x for x in operands if x.const is None]
        if len(stacks) != 1 or not stacks[0].parts:
            operands = [context.merge_parts(x) for x in operands]
            return function(context, params, operands, shapes)
        [whole] = stacks
        changed = []
        for part in whole.parts:
            same = [part if x is whole else x for x in operands]
            changed += function(context, params, same, [part.shape])
        return [stack(context, changed, whole.stack_axis, shapes[0])]

    return applied


def stack(
    context: Context, parts: list[Value], axis: int, shape: tuple[int, ...]
) -> Value:
    """Return arrays of one shape as one array of this shape."""
    [whole] = RULES["stack"](context, {"axis": axis}, parts, [shape])
    return whole


def dependencies(operands: Sequence[Operand]) -> int:
    """Return the parameters through which the gradient of a result may go."""
    found = 0
    for operand in operands:
        value = operand.content if isinstance(operand, Cell) else operand
        found |= value.depends_on
        for offset in value.offsets:
            found |= offset.depends_on
    return found


def apply(
    context: Context,
    name: str,
    params: Mapping[str, Any],
    operands: list[Any],
    shapes: Shapes,
) -> list[Any]:
    """Return the values of a primitive's results."""
    if name in RULES and (name in OF_REFS or not _any_cells(operands)):
        return RULES[name](context, params, operands, shapes)
    if _any_cells(operands):
        return unknown(context, operands, f"`{name}` of a `jax.Ref`", shapes)
    if name in NONLINEAR:
        text = f"`{name}` of what scales"
        return unknown(context, operands, text, shapes, "nonlinear")
    return unknown(context, operands, f"no rule for `{name}`", shapes)


def unknown(
    context: Context,
    operands: Sequence[Operand],
    text: str,
    shapes: Shapes = (),
    kind: str = "unknown",
) -> list[Value]:
    """Return results that may depend on their operands in any way.

    None of the operands may scale, nor what refs among them hold; what these
    hold afterwards depends on all of them.
    """
    everything = dependencies(operands)
    for operand in operands:
        if isinstance(operand, Cell):
            context.require_invariant(operand.content, kind, text)
            operand.content = Value(
                operand.content.shape, depends_on=everything
            )
        else:
            context.require_invariant(operand, kind, text)
    return [Value(shape, depends_on=everything) for shape in shapes]


def _any_cells(operands: Sequence[Operand]) -> bool:
    return any(isinstance(operand, Cell) for operand in operands)


# Primitives whose first operand is a mutable array, or whose result is.
OF_REFS = frozenset({"new_ref", "get", "swap", "addupdate", "freeze"})

# Primitives that no scale passes through, which are no gap in the table.
NONLINEAR = frozenset(
    """
    exp exp2 expm1 log log1p log2 logistic tanh sin cos tan asin acos atan sinh
    cosh asinh acosh atanh erf erfc erf_inv lgamma digamma bessel_i0e bessel_i1e
    regularized_incomplete_beta igamma igammac igamma_grad_a polygamma zeta rem
    nextafter floor ceil round cumprod cumlogsumexp bitcast_convert_type
    random_gamma one_minus_square polynomial
    """.split()  # noqa: SIM905
)
