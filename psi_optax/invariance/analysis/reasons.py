"""Reasons why scales are fixed, in words made from the program around them."""

import functools
from typing import Any, Literal, NamedTuple

from psi_optax.invariance import jaxprs

# Each variable of a program with its position and the equation that defines it.
Definitions = dict[Any, tuple[int, Any]]


class Program:
    """A jaxpr, with the definitions of its variables at hand."""

    def __init__(self, jaxpr: Any) -> None:
        self.jaxpr = jaxpr

    @functools.cached_property
    def definitions(self) -> Definitions:
        """The position and the equation that define each variable."""
        equations = enumerate(self.jaxpr.eqns)
        return {v: (k, e) for k, e in equations for v in e.outvars}


class ReasonOrigin(NamedTuple):
    """An equation, with the program that it is in."""

    program: Program
    equation: Any


# In the reason of a weight before a BatchNorm in evaluation mode.
RUNNING_AVERAGES = "running averages?"

ReasonKind = Literal["mixture", "nonlinear", "output", "unknown", "shape"]


class Reason(NamedTuple):
    """A reason why a linear form has to be zero or uniform.

    Attributes:
        kind: the kind of operation that asks for it.
        text: the reason in words.
        site: the place in the user's source; "" if unknown.
        origin: the equation of the program; None if there is none.
        subtracts_constant: whether fixed data that are subtracted are constant
            along an axis; None if the operation subtracts no data.
    """

    kind: ReasonKind
    text: str
    site: str = ""
    origin: ReasonOrigin | None = None
    subtracts_constant: bool | None = None


def describe(reason: Reason) -> str:
    """Return a reason in words, with its site."""
    text = _words(reason)
    return f"{text}, at {reason.site}" if reason.site else text


def _words(reason: Reason) -> str:
    if reason.kind != "mixture" or reason.origin is None:
        return reason.text
    if reason.subtracts_constant is not None:
        return _subtraction(reason.origin, reason.subtracts_constant)
    if _is_skip(reason.origin):
        return reason.text.replace("`add` of", "a skip connection adds")
    return reason.text


def _subtraction(origin: ReasonOrigin, is_constant: bool) -> str:
    """Describe a subtraction of data: of a target, or of running averages.

    Running averages are constant over a batch, and the difference is divided by
    a deviation. A target has a number for each output, and the difference
    enters a loss.
    """
    is_normalized = _is_normalized(origin)
    if is_constant and is_normalized:
        text = RUNNING_AVERAGES
    elif is_constant or is_normalized:
        text = f"a target, or {RUNNING_AVERAGES}"
    else:
        return "a difference from a target, whose scale is fixed"
    return f"a subtracted array does not come from the weights ({text})"


def _is_normalized(origin: ReasonOrigin) -> bool:
    """Check that a result is multiplied or divided by another array."""
    program, equation = origin
    copies = set(equation.outvars)
    for user in program.jaxpr.eqns:
        arrays = [x for x in user.invars if not jaxprs.is_literal(x)]
        if copies.isdisjoint(arrays):
            continue
        name = user.primitive.name
        if name in jaxprs.LAYOUT:
            copies |= set(user.outvars)
        elif name in ("mul", "div") and not copies.issuperset(arrays):
            return True
    return False


def _is_skip(origin: ReasonOrigin) -> bool:
    """Check that an array is added to a function of it and of another one.

    The cubic term of a polynomial is a function of the array alone.
    """
    program, equation = origin
    if equation.primitive.name != "add" or len(equation.invars) != 2:
        return False
    a, b = equation.invars
    return any(
        _branches_off(program.definitions, one, other)
        for one, other in ((a, b), (b, a))
    )


def _branches_off(definitions: Definitions, stream: Any, branch: Any) -> bool:
    """Check that a branch is a function of a stream and of another array."""
    if jaxprs.is_literal(stream):
        return False
    stream = _without_layout(definitions, stream)
    first, _ = definitions.get(stream, (-1, None))
    meets, other = False, False
    remaining, seen = [branch], {stream}
    while remaining:
        atom = remaining.pop()
        meets |= atom is stream
        if jaxprs.is_literal(atom) or atom in seen:
            continue
        seen.add(atom)
        position, equation = definitions.get(atom, (-1, None))
        if position > first:
            remaining += equation.invars
        else:  # The array exists before the stream.
            other = True
    return meets and other


def _without_layout(definitions: Definitions, atom: Any) -> Any:
    """Return the array that an array is a copy or a multiple of."""
    while atom in definitions:
        _, equation = definitions[atom]
        arrays = [x for x in equation.invars if not jaxprs.is_literal(x)]
        name = equation.primitive.name
        moved = name in jaxprs.LAYOUT - {"broadcast_in_dim"}
        if len(arrays) != 1 or not (moved or name in ("mul", "div")):
            return atom
        [atom] = arrays
    return atom
