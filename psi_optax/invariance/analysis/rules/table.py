"""The table of rules: how the results of each primitive scale.

A rule is a function of a `Call`, an application of the primitive. It requires
the conditions under which the results scale, and returns their values. To teach
the analysis a primitive, write one:

    @rule("my_primitive")
    def _my_primitive(call: Call) -> list[Value]:
        ...

The operands of a primitive without a rule must not scale, since its results may
depend on them in any way.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from psi_optax.invariance.analysis.context import Context
from psi_optax.invariance.analysis.reasons import ReasonKind
from psi_optax.invariance.analysis.values import (
    Operand,
    Ref,
    Shape,
    Value,
    combined_dependencies,
)


class Call(NamedTuple):
    """An application of a primitive.

    Attributes:
        context: the analysis, at this equation.
        params: the parameters of the equation.
        operands: the values of its operands; refs among them for a few
            primitives.
        shapes: the shapes of its results.
    """

    context: Context
    params: Mapping[str, Any]
    operands: list[Any]
    shapes: Sequence[Shape]

    @property
    def shape(self) -> Shape:
        """The shape of the first result."""
        return self.shapes[0]

    def on(self, *operands: Operand, shape: Shape | None = None) -> "Call":
        """Return the call with other operands, and another shape if given."""
        shapes = self.shapes if shape is None else [shape]
        return self._replace(operands=list(operands), shapes=shapes)

    def unknown(self, text: str, kind: ReasonKind = "unknown") -> list[Value]:
        """Return results that may depend on the operands in any way.

        None of the operands may scale, nor the content of refs among them,
        which then depends on all of them.
        """
        bits = combined_dependencies(self.operands)
        for operand in self.operands:
            if isinstance(operand, Ref):
                content = operand.content
                self.context.require_invariant(content, kind, text)
                operand.content = Value(content.shape, depends_on=bits)
            else:
                self.context.require_invariant(operand, kind, text)
        return [Value(shape, depends_on=bits) for shape in self.shapes]


Rule = Callable[[Call], list[Any]]

RULES: dict[str, Rule] = {}


def rule(
    *primitives: str, keeps_offsets: bool = False, keeps_parts: bool = False
) -> Callable[[Rule], Rule]:
    """Register a rule for primitives.

    Args:
        primitives: their names.
        keeps_offsets: whether the rule handles offsets. Otherwise they are
            resolved before.
        keeps_parts: whether it handles the parts of stacks as well.
    """

    def register(function: Rule) -> Rule:
        def resolved(call: Call) -> list[Any]:
            context = call.context
            resolve = context.resolve_offsets
            if keeps_offsets:
                resolve = context.merge_parts
            operands = [
                x if isinstance(x, Ref) else resolve(x) for x in call.operands
            ]
            found = function(call.on(*operands))
            if keeps_offsets:
                return found
            # A result without a gradient depends on the operands all the same.
            bits = context.without_gradient(combined_dependencies(operands))
            return [x.replace(depends_on=x.depends_on | bits) for x in found]

        for name in primitives:
            RULES[name] = function if keeps_parts else resolved
        return function

    return register


def rule_by_parts(function: Rule) -> Rule:
    """Apply a rule to each part of a stack that is its only array."""

    def applied(call: Call) -> list[Any]:
        context = call.context
        stacks = [x for x in call.operands if x.const is None]
        if len(stacks) != 1 or not stacks[0].parts:
            return function(call.on(*map(context.merge_parts, call.operands)))
        [whole] = stacks
        parts = []
        for part in whole.parts:
            operands = [part if x is whole else x for x in call.operands]
            parts += function(call.on(*operands, shape=part.shape))
        return [stack(context, parts, whole.stack_axis, call.shape)]

    return applied


def stack(
    context: Context, parts: Iterable[Value], axis: int, shape: Shape
) -> Value:
    """Return arrays of one shape as one array of another."""
    call = Call(context, {"axis": axis}, list(parts), [shape])
    [whole] = RULES["stack"](call)
    return whole


def apply(name: str, call: Call) -> list[Any]:
    """Return the values of a primitive's results."""
    has_refs = any(isinstance(operand, Ref) for operand in call.operands)
    if name in RULES and (name in OF_REFS or not has_refs):
        return RULES[name](call)
    if has_refs:
        return call.unknown(f"`{name}` of a `jax.Ref`")
    if name in NONLINEAR:
        return call.unknown(f"`{name}` of scaled values", "nonlinear")
    return call.unknown(f"no rule for `{name}`")


# Primitives whose first operand is a mutable array, or whose result is.
OF_REFS = frozenset({"new_ref", "get", "swap", "addupdate", "freeze"})

# Primitives whose results do not scale with their operands in any way. They are
# no gap in the table.
NONLINEAR = frozenset(
    """
    exp exp2 expm1 log log1p log2 logistic tanh sin cos tan asin acos atan sinh
    cosh asinh acosh atanh erf erfc erf_inv lgamma digamma bessel_i0e bessel_i1e
    regularized_incomplete_beta igamma igammac igamma_grad_a polygamma zeta rem
    nextafter floor ceil round cumprod cumlogsumexp bitcast_convert_type
    random_gamma one_minus_square polynomial
    """.split()  # noqa: SIM905
)
