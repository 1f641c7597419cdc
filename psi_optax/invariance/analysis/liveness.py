"""The equations of a program that its results depend on.

Statistics that are computed and not returned must not count: they do scale. A
write to a `jax.Ref` counts if it is read later.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from psi_optax.invariance import jaxprs

Atoms = frozenset[Any]


class LiveEquation(NamedTuple):
    """An equation with its part in the results.

    Attributes:
        equation: the equation.
        used: for each of its results, whether it is used.
        kept: those of its refs that are read after it.
    """

    equation: Any
    used: list[bool]
    kept: Atoms


def live_equations(
    jaxpr: Any, needed: Sequence[bool], kept: Collection[Any] = ()
) -> tuple[list[LiveEquation], Atoms]:
    """Select the equations that some results depend on.

    Args:
        jaxpr: the program, without constants.
        needed: for each of its results, whether it is needed.
        kept: those of its refs that are read after it.

    Returns:
        The equations in their order, and all variables that they read.
    """
    wanted = set(kept)
    for atom, need in zip(jaxpr.outvars, needed, strict=True):
        if need and not jaxprs.is_literal(atom):
            wanted.add(atom)
    live = []
    for equation in reversed(jaxpr.eqns):
        used = [variable in wanted for variable in equation.outvars]
        refs = _refs(equation) & wanted
        if any(used) or _writes(equation, refs):
            live.append(LiveEquation(equation, used, frozenset(refs)))
            wanted |= _read(equation, used, refs)
    return live[::-1], frozenset(wanted)


def kept_by_loop(
    jaxpr: Any, needed: Sequence[bool], kept: Collection[Any]
) -> Atoms:
    """Add the refs that the next iteration of a loop's body reads."""
    refs = {v for v in jaxpr.invars if jaxprs.is_ref(v)}
    before: Atoms = frozenset(kept)
    while True:
        _, wanted = live_equations(jaxpr, needed, before)
        after = before | (wanted & refs)
        if after == before:
            return after
        before = after


def called_body(equation: Any) -> Any:
    """Return the body of an equation that does nothing but call it, or None."""
    if equation.primitive.name not in _CALLS:
        return None
    for key in _BODIES:
        if key in equation.params:
            inner, _ = jaxprs.open_jaxpr(equation.params[key])
            same = len(inner.invars) == len(equation.invars)
            return equation.params[key] if same else None
    return None


def has_own_derivative(equation: Any) -> bool:
    """Return whether an equation calls a function with a custom derivative."""
    return equation.primitive.name.startswith(("custom_jvp", "custom_vjp"))


_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr", "call")
_CALLS = frozenset(
    """
    jit call closed_call remat2 composite custom_partitioning xla_metadata_call
    custom_vmap_call custom_jvp_call custom_vjp_call
    """.split()  # noqa: SIM905
)


def _refs(equation: Any) -> set[Any]:
    return {atom for atom in equation.invars if jaxprs.is_ref(atom)}


def _writes(equation: Any, kept: Collection[Any]) -> bool:
    """Return whether an equation changes a kept ref, or the world."""
    if equation.primitive.name == "get":
        return False
    return bool(kept) or jaxprs.has_effects(equation)


def _read(equation: Any, used: list[bool], kept: Collection[Any]) -> set[Any]:
    """Return the operands that the used results and kept refs depend on.

    A custom derivative may send gradients to operands that the value of the
    function does not depend on: all of them are read.
    """
    operands = equation.invars
    body = called_body(equation)
    if body is not None and not has_own_derivative(equation):
        inner, _ = jaxprs.open_jaxpr(body)
        pairs = list(zip(operands, inner.invars, strict=True))
        kept = [v for atom, v in pairs if jaxprs.is_ref(atom) and atom in kept]
        _, wanted = live_equations(inner, used, kept)
        operands = [atom for atom, variable in pairs if variable in wanted]
    return {atom for atom in operands if not jaxprs.is_literal(atom)}
