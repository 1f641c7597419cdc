"""The smallest sets of parameters that scale together."""

import dataclasses
import math
from collections.abc import Container, Hashable, Iterable, Sequence
from fractions import Fraction
from typing import Any

from psi_optax.invariance.analysis.equations import Equations
from psi_optax.invariance.analysis.isolation import (
    Isolated,
    hold,
    isolate,
    parameters_of,
)
from psi_optax.invariance.analysis.linear_forms import (
    Form,
    HasForm,
    Variable,
)
from psi_optax.invariance.analysis.parameters import Parameter
from psi_optax.invariance.analysis.scale_groups import (
    Digits,
    FinestGroups,
    group_count,
    groups_by,
)

Symmetries = dict[str, FinestGroups]


def find_ties(
    equations: Equations, component: Iterable[HasForm]
) -> tuple[Symmetries, Symmetries]:
    """Return the groups of the smallest sets of parameters that scale together.

    Of sets that overlap, one is kept.

    Args:
        equations: the equations of the program.
        component: things that share unknowns; see `isolation.components`.

    Returns:
        The symmetries of tied parameters, and those of parameters whose set
        overlaps with a tie.
    """
    component = list(component)
    # Kernels first: their ties matter most.
    rest = sorted(parameters_of(component), key=lambda p: -math.prod(p.shape))
    watched = [x for x in component if not isinstance(x, Parameter)]
    first = search = _TieSearch(equations, rest, watched)
    found: Symmetries = {}
    for one in rest:
        if one.path in found:
            continue
        if search.overlaps(one, found):
            tied = [p for p in rest if p.path in found]
            search = _TieSearch(hold(equations, tied), rest, watched)
        # A parameter is in one tie at most.
        found |= search.tie_of(one)
    if search is first:
        return found, {}
    return found, _lost(first, [p for p in rest if p.path not in found])


def _lost(search: "_TieSearch", rest: Iterable[Parameter]) -> Symmetries:
    """Return the parameters that could be tied, if others were not."""
    lost = {}
    for one in rest:
        others = tuple(path for path in search.tie_of(one) if path != one.path)
        if others:
            lost[one.path] = FinestGroups(None, shared=others)
    return lost


class _TieSearch:
    """A search for the smallest sets of parameters that scale together.

    The set that is left when as many others as possible are held depends on
    the order of holding: the small ones first, or the large. Either order makes
    a *basis* of the parameters that are still free at their turn. Holding all
    of a basis but one leaves one way to scale. The parameters that scale then
    are a set that cannot be smaller. A parameter outside the basis scales in
    several of these ways. With others held in the same order, the last of them
    is left. A parameter of fused parts may scale in none of the ways: then the
    others are held one by one.
    """

    def __init__(
        self,
        equations: Equations,
        rest: Sequence[Parameter],
        watched: Sequence[HasForm],
    ) -> None:
        self._equations = equations
        self._orders = [*rest[::-1], *watched], [*rest, *watched]
        self._ways = [self._last_ways(order) for order in self._orders]
        self._failed: set[Hashable] = set()

    def _last_ways(self, order: Sequence[HasForm]) -> dict[str, Isolated]:
        """Return the last way in which each parameter scales."""
        held = self._equations.copy()
        basis = []
        for one in parameters_of(order):
            if held.reduce(one.form):
                held.require_zero(one.form, None)
                basis.append(one.path)
        ways = {
            way.parameter.path: way
            for way in isolate(self._equations, order, set(basis))
        }
        return {
            one.path: ways[path]
            for path in basis
            if path in ways
            for one in parameters_of(ways[path].followed)
        }

    def overlaps(self, one: Parameter, found: Container[str]) -> bool:
        """Check that a set of one parameter has others that are tied."""
        return any(
            other.path in found
            for ways in self._ways
            if one.path in ways
            for other in parameters_of(ways[one.path].followed)
        )

    def tie_of(self, one: Parameter) -> Symmetries:
        """Return the groups of a smallest set with a parameter, if any.

        A set that cannot scale as one is not tried again for its others.
        """
        if not self._equations.reduce(one.form):
            return {}
        for index, ways in enumerate(self._ways):
            everything = Isolated(one, self._equations, self._orders[index])
            way = ways.get(one.path, everything)
            freedom = _freedom(way.equations.reduce(one.form))
            key = index, way.parameter.path, freedom
            if key not in self._failed:
                tied = _smallest_tie(way._replace(parameter=one))
                if tied:
                    return tied
                self._failed.add(key)
        return {}


def _freedom(form: Form) -> Hashable:
    """Return a key, equal for forms that are zero for the same reasons."""
    terms = list(form)
    if len(terms) == 1 and not terms[0].where:
        variable, digits, _ = terms[0]
        if len(set(digits)) == len(digits):
            return variable
    return frozenset(form.items())


def _smallest_tie(way: Isolated) -> Symmetries:
    """Return the groups of one parameter and of those that have to scale too.

    Parameters that need not scale with it are held, one after the other.
    """
    one, equations, followed = way
    freedom = _freedom(equations.reduce(one.form))
    for other in parameters_of(followed):
        if _freedom(equations.reduce(other.form)) != freedom:
            trial = hold(equations, [other])
            if left := trial.reduce(one.form):
                equations, freedom = trial, _freedom(left)
    forms = {p.path: equations.reduce(p.form) for p in parameters_of(followed)}
    if _has_two_powers(forms.values()):
        return {}
    members = [p for p in parameters_of(followed) if forms[p.path]]
    watched = [x for x in followed if not isinstance(x, Parameter)]
    isolated = Isolated(one, equations, watched)
    for digits in _options(one, forms, members):
        found = groups_by(isolated, digits, members)
        if found is not None:
            return _tied(found)
    return {}


def _has_two_powers(forms: Iterable[Form]) -> bool:
    """Check that an unknown scales two whole arrays by different powers.

    These are in no tie. The mean of p times an unknown v, over an array along
    whose axes v runs, is p times the mean of v. In a tie, it is the mean of the
    common scale s, as groups have equal sizes. For two powers p, the mean of v
    is zero, and so is that of s, which cannot take all values.
    """
    powers: dict[Variable, Fraction] = {}
    for form in forms:
        if len(form) != 1:
            continue
        [(term, power)] = form.items()
        axes = {digit.axis for digit in term.digits}
        is_whole = not term.where and len(axes) == len(term.digits)
        if is_whole and powers.setdefault(term.variable, power) != power:
            return True
    return False


def _tied(symmetries: Symmetries) -> Symmetries:
    """Return symmetries with one tie, the first path."""
    tie = min(symmetries)
    return {
        path: dataclasses.replace(
            one, group=dataclasses.replace(one.group, tie=tie)
        )
        for path, one in symmetries.items()
        if one.group is not None
    }


def _options(
    one: Parameter, forms: dict[str, Form], members: Sequence[Parameter]
) -> list[dict[str, Digits]]:
    """Return digits of all members at which they have an unknown in common.

    Those that distinguish the most groups come first.
    """
    options: list[dict[str, Any]] = []
    for variable in {term.variable for term in forms[one.path]}:
        digits = {}
        for path, form in forms.items():
            own = [t for t in form if t.variable == variable and not t.where]
            if len(own) == 1:
                digits[path] = own[0].digits
        if len(digits) == len(members):
            options.append(digits)
    options.sort(key=lambda digits: -group_count(digits[one.path], one.shape))
    return [*options, {m.path: () for m in members}]
