"""The words for why scales are fixed, with the program around an equation."""

from typing import Any

from psi_optax.invariance import jaxprs
from psi_optax.invariance.analysis.values import Origin, Reason

# Operations that move elements, or convert them.
LAYOUT = frozenset(
    """
    reshape squeeze transpose broadcast_in_dim convert_element_type copy
    reduce_precision sharding_constraint optimization_barrier rev slice pad
    pvary name
    """.split()  # noqa: SIM905
)


def describe(reason: Reason) -> str:
    """Return a reason in words, with its site."""
    text = _words(reason)
    return f"{text}, at {reason.site}" if reason.site else text


def _words(reason: Reason) -> str:
    if reason.kind != "mixture" or reason.origin is None:
        return reason.text
    if reason.constant_axes is not None:
        return _subtracted(reason.origin, reason.constant_axes)
    if _is_skip(reason.origin):
        return reason.text.replace("`add` of", "a skip connection adds")
    return reason.text


def _subtracted(origin: Origin, flat: bool) -> str:
    """Return what is subtracted: a target, or averages over other batches.

    Averages are the same for a whole batch, and what is left is divided by a
    deviation. A target has a number for each output, and the difference goes
    into a loss.
    """
    normalized = _is_normalized(origin)
    if flat and normalized:
        text = "running averages?"
    elif flat or normalized:
        text = "a target, or running averages?"
    else:
        return "a difference from a target, whose scale is fixed"
    return f"what is subtracted does not come from the weights ({text})"


def _is_normalized(origin: Origin) -> bool:
    """Return whether a result is multiplied or divided by another array."""
    program, equation = origin
    same = set(equation.outvars)
    for user in program.jaxpr.eqns:
        mine = [x for x in user.invars if not jaxprs.is_literal(x)]
        if same.isdisjoint(mine):
            continue
        name = user.primitive.name
        if name in LAYOUT:
            same |= set(user.outvars)
        elif name in ("mul", "div") and not same.issuperset(mine):
            return True
    return False


def _is_skip(origin: Origin) -> bool:
    """Return whether x is added to a function of x and of something else.

    The cubic term of a polynomial is a function of x alone.
    """
    program, equation = origin
    if equation.primitive.name != "add" or len(equation.invars) != 2:
        return False
    a, b = equation.invars
    return any(
        _branches_off(program.defined, one, other)
        for one, other in ((a, b), (b, a))
    )


# Where in a program a variable is made, and by which equation.
Defined = dict[Any, tuple[int, Any]]


def _branches_off(defined: Defined, stream: Any, branch: Any) -> bool:
    """Return whether a branch is made of a stream, and of something else."""
    if jaxprs.is_literal(stream):
        return False
    stream = _without_layout(defined, stream)
    first, _ = defined.get(stream, (-1, None))
    meets, other = False, False
    left, seen = [branch], {stream}
    while left:
        atom = left.pop()
        meets |= atom is stream
        if jaxprs.is_literal(atom) or atom in seen:
            continue
        seen.add(atom)
        place, equation = defined.get(atom, (-1, None))
        if place > first:
            left += equation.invars
        else:  # It was there before the stream.
            other = True
    return meets and other


def _without_layout(defined: Defined, atom: Any) -> Any:
    """Return the array that an array is a copy or a multiple of."""
    while atom in defined:
        _, equation = defined[atom]
        arrays = [x for x in equation.invars if not jaxprs.is_literal(x)]
        name = equation.primitive.name
        moved = name in LAYOUT - {"broadcast_in_dim"}
        if len(arrays) != 1 or not (moved or name in ("mul", "div")):
            return atom
        [atom] = arrays
    return atom
