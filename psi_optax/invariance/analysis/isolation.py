"""Systems of equations where one parameter scales and others do not."""

from collections.abc import Container, Iterable, Iterator, Sequence
from typing import NamedTuple

from psi_optax.invariance.analysis.equations import Equations
from psi_optax.invariance.analysis.linear_forms import HasForm, Variable
from psi_optax.invariance.analysis.parameters import Parameter


class Isolated(NamedTuple):
    """A parameter that scales while others do not.

    Attributes:
        parameter: the parameter.
        equations: the equations that hold if the others do not scale.
        followed: everything followed that may scale with it.
    """

    parameter: Parameter
    equations: Equations
    followed: Sequence[HasForm]


def parameters_of(followed: Iterable[HasForm]) -> list[Parameter]:
    """Return those of some things that are parameters."""
    return [x for x in followed if isinstance(x, Parameter)]


def hold(equations: Equations, parameters: Iterable[Parameter]) -> Equations:
    """Return the equations that hold if some parameters do not scale."""
    held = equations.copy()
    for parameter in parameters:
        held.require_zero(parameter.form, None)
    return held


def unknowns(equations: Equations, x: HasForm) -> set[Variable]:
    """Return the free variables that something scales by."""
    return {term.variable for term in equations.reduce(x.form)}


def isolate(
    equations: Equations, followed: Sequence[HasForm], members: Container[str]
) -> Iterator[Isolated]:
    """Yield each of some parameters with all others of them held.

    One half of a component is held while the other half is looked at, and so
    on: n log n parameters are held in place of n squared. Most components fall
    apart long before the last half. Members that cannot scale then are omitted.

    Args:
        equations: the equations of the program.
        followed: the members, and everything else to follow.
        members: the paths of the parameters.
    """
    for component in components(equations, followed):
        free = [p for p in parameters_of(component) if p.path in members]
        if len(free) == 1:
            yield Isolated(free[0], equations, component)
        if len(free) > 1:
            middle = len(free) // 2
            for held in (free[middle:], free[:middle]):
                excluded = set(map(id, held))
                rest = [x for x in component if id(x) not in excluded]
                yield from isolate(hold(equations, held), rest, members)


def components(
    equations: Equations, followed: Iterable[HasForm]
) -> list[list[HasForm]]:
    """Return the sets that share unknowns, directly or through others.

    Things without unknowns are in none of them.
    """
    parents: dict[Variable, Variable] = {}

    def root(variable: Variable) -> Variable:
        while (up := parents.setdefault(variable, variable)) != variable:
            parents[variable] = variable = parents[up]
        return variable

    first: list[tuple[Variable, HasForm]] = []
    for x in followed:
        roots = list(map(root, unknowns(equations, x)))
        if roots:
            parents |= dict.fromkeys(roots, roots[0])
            first.append((roots[0], x))
    found: dict[Variable, list[HasForm]] = {}
    for variable, x in first:
        found.setdefault(root(variable), []).append(x)
    return list(found.values())
