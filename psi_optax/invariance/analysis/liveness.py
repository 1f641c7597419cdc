"""Select the equations of a program that its results depend on.

Statistics that are computed and not returned must not count: they do scale. A
write to a `jax.Ref` counts if it is read later.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from psi_optax.invariance import jaxprs
from psi_optax.invariance.analysis.values import Operand, Ref

Variables = frozenset[Any]


class Needed(NamedTuple):
    """The effects of a program that matter.

    Attributes:
        results: for each result, whether it is used.
        refs: those of its operands that are read after it.
    """

    results: list[bool]
    refs: frozenset[Ref] = frozenset()


class LiveEquation(NamedTuple):
    """An equation, with the effects of it that matter.

    Attributes:
        equation: the equation.
        used: for each of its results, whether it is used.
        read_later: those of its refs that are read after it.
    """

    equation: Any
    used: list[bool]
    read_later: Variables


def live_equations(
    jaxpr: Any, needed: Sequence[bool], read_later: Collection[Any] = ()
) -> tuple[list[LiveEquation], Variables]:
    """Select the equations that some results depend on.

    Args:
        jaxpr: the program, without constants.
        needed: for each of its results, whether it is needed.
        read_later: those of its refs that are read after it.

    Returns:
        The equations in their order, and all variables that they read.
    """
    wanted = set(read_later)
    for atom, need in zip(jaxpr.outvars, needed, strict=True):
        if need and not jaxprs.is_literal(atom):
            wanted.add(atom)
    live = []
    for equation in reversed(jaxpr.eqns):
        used = [variable in wanted for variable in equation.outvars]
        refs = {atom for atom in equation.invars if jaxprs.is_ref(atom)}
        refs &= wanted
        if any(used) or _writes(equation, refs):
            live.append(LiveEquation(equation, used, frozenset(refs)))
            wanted |= _reads(equation, used, refs)
    return live[::-1], frozenset(wanted)


def live_refs_of_loop(
    jaxpr: Any, needed: Sequence[bool], read_later: Collection[Any]
) -> Variables:
    """Return the refs that are read after a loop, or by its next turn."""
    refs = {v for v in jaxpr.invars if jaxprs.is_ref(v)}
    before: Variables = frozenset(read_later)
    while True:
        _, wanted = live_equations(jaxpr, needed, before)
        after = before | (wanted & refs)
        if after == before:
            return after
        before = after


def variables_of(
    operands: Iterable[tuple[Any, Operand]], refs: Collection[Ref]
) -> list[Any]:
    """Return the variables whose operand is one of some refs."""
    return [v for v, x in operands if isinstance(x, Ref) and x in refs]


def _writes(equation: Any, read_later: Collection[Any]) -> bool:
    """Check that an equation changes a ref that is read, or has effects."""
    if equation.primitive.name == "get":
        return False
    return bool(read_later) or jaxprs.has_effects(equation)


def _reads(
    equation: Any, used: Sequence[bool], read_later: Collection[Any]
) -> set[Any]:
    """Return the operands that the effects of an equation depend on."""
    operands = equation.invars
    body = _differentiated_body(equation)
    if body is not None:
        inner, _ = jaxprs.open_jaxpr(body)
        pairs = list(zip(operands, inner.invars, strict=True))
        read_later = [
            v for x, v in pairs if jaxprs.is_ref(x) and x in read_later
        ]
        _, wanted = live_equations(inner, used, read_later)
        operands = [atom for atom, variable in pairs if variable in wanted]
    return {atom for atom in operands if not jaxprs.is_literal(atom)}


def _differentiated_body(equation: Any) -> Any:
    """Return the body of a call that is differentiated as written, or None.

    A custom derivative may send gradients to operands that the value of the
    function does not depend on: all of them are read.
    """
    if jaxprs.has_custom_derivative(equation):
        return None
    return jaxprs.called_body(equation)
