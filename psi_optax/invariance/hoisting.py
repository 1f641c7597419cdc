"""Hoist the arrays that jitted functions close over to the top of a program."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.extend import core

from psi_optax.invariance import jaxprs


def hoist_constants(program: Any, *args: Any) -> Any:
    """Return a program that holds at its top what its jitted functions hold.

    Those are written in place of their calls. Functions that are jitted inside
    of loops and branches keep their arrays.

    Args:
        program: the jaxpr.
        args: the arguments that it was made for.
    """
    if not _holds_constants(program):
        return program
    hoisted, _ = jaxprs.make_jaxpr(
        lambda *inputs: _evaluate(program, inputs), *jax.tree.leaves(args)
    )
    return hoisted


def inner_constants(program: Any) -> Iterator[Any]:
    """Yield the arrays that functions inside of a program close over."""
    for equation in jaxprs.open_jaxpr(program)[0].eqns:
        for parameter in equation.params.values():
            is_tuple = isinstance(parameter, tuple)
            for body in parameter if is_tuple else (parameter,):
                if hasattr(body, "eqns"):
                    yield from jaxprs.open_jaxpr(body)[1]
                    yield from inner_constants(body)


def _holds_constants(program: Any) -> bool:
    """Check that a jitted function in a program holds arrays."""
    return any(
        _is_open(equation) for equation in jaxprs.open_jaxpr(program)[0].eqns
    )


def _is_open(equation: Any) -> bool:
    """Check that an equation calls a jitted function that holds arrays."""
    if equation.primitive.name not in ("jit", "pjit"):
        return False
    body = equation.params["jaxpr"]
    return bool(jaxprs.open_jaxpr(body)[1]) or _holds_constants(body)


def _evaluate(program: Any, inputs: Sequence[Any]) -> list[Any]:
    """Return the results of a program, equation by equation."""
    inner, constants = jaxprs.open_jaxpr(program)
    values = dict(zip(inner.constvars, constants, strict=True))
    values |= dict(zip(inner.invars, inputs, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if jaxprs.is_literal(atom) else values[atom]

    for equation in inner.eqns:
        if _is_open(equation):
            operands = [read(atom) for atom in equation.invars]
            found = _evaluate(equation.params["jaxpr"], operands)
        else:
            found = _apply(inner, equation, values)
        values.update(zip(equation.outvars, found, strict=True))
    return [read(atom) for atom in inner.outvars]


def _apply(inner: Any, equation: Any, values: dict[Any, Any]) -> list[Any]:
    """Return the results of one equation of a program."""
    used = [x for x in equation.invars if not jaxprs.is_literal(x)]
    used = list(dict.fromkeys(used))
    alone = inner.replace(
        constvars=[],
        invars=used,
        outvars=list(equation.outvars),
        eqns=[equation],
        effects=equation.effects,
        debug_info=inner.debug_info.with_unknown_names(),
    )
    call = core.jaxpr_as_fun(core.ClosedJaxpr(alone, ()))
    return call(*(values[variable] for variable in used))
