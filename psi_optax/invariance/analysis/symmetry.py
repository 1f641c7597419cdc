"""From the symmetries of a program to groups that can be stated.

What is left free by the equations may scale a parameter alone, several in the
same way, or one up and another one down. The first two are scale groups.
"""

import dataclasses
import heapq
import itertools
import math
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from psi_optax.groups import ScaleGroup
from psi_optax.invariance.analysis.equations import Equations
from psi_optax.invariance.analysis.linear_forms import (
    Digit,
    Form,
    Variable,
    digits_of,
    minus,
    move_digits,
)

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter: its shape, and the logarithms of its scales."""

    path: str
    shape: Shape
    form: Form


class Watched(Protocol):
    """Anything that scales, as a parameter does."""

    @property
    def form(self) -> Form:
        """The logarithms of its scales."""


@dataclasses.dataclass(frozen=True)
class Symmetry:
    """The finest groups of a parameter.

    A group of None is one of a part of the parameter, which a `ScaleGroup`
    cannot state, or one that overlaps with others.

    Attributes:
        group: the groups.
        scaled: all that is watched and scales with them.
        shared: paths of the others of a tie that was given up for another.
    """

    group: ScaleGroup | None
    scaled: tuple[Any, ...] = ()
    shared: tuple[str, ...] = ()


class Alone(NamedTuple):
    """The equations where one parameter scales and others do not.

    Attributes:
        one: the parameter.
        equations: those that hold if the others do not scale.
        along: what is followed and may scale there.
    """

    one: Parameter
    equations: Equations
    along: list[Any]


def find_symmetries(
    equations: Equations,
    parameters: Iterable[Parameter],
    still: Iterable[Parameter] = (),
    watched: Iterable[Watched] = (),
) -> dict[str, Symmetry]:
    """Return the groups of each parameter that has any.

    First each parameter alone, all others unscaled; such groups can be scaled
    independently of each other. Then, of what has none, the smallest sets that
    scale together. What stands still, for want of a gradient, is in no group.

    Args:
        equations: those of the program.
        parameters: those to find groups of.
        still: those of them that get no gradient.
        watched: see `Symmetry.scaled`.
    """
    equations = _without(equations, still)
    parameters, watched = list(parameters), list(watched)
    everything, paths = [*parameters, *watched], {p.path for p in parameters}
    found = {}
    for alone in _each_alone(equations, everything, paths):
        symmetry = _symmetry(alone)
        if symmetry is not None:
            found[alone.one.path] = symmetry
    joint, lost = equations, {}
    for narrow in (_unchanged, _as_wholes):
        joint = _without(joint, (p for p in parameters if p.path in found))
        rest = [p for p in parameters if p.path not in found]
        joint = narrow(joint, rest)
        for component in _components(joint, [*rest, *watched]):
            tied, overlapping = _ties(joint, component)
            found |= tied
            lost |= overlapping
    return lost | found


def _unchanged(equations: Equations, _: list[Parameter]) -> Equations:
    return equations


def _as_wholes(equations: Equations, rest: list[Parameter]) -> Equations:
    """Return the equations where no part of a parameter scales without others.

    A part of one may scale with another parameter alone, so that a smallest
    set is one that no `ScaleGroup` states: a class token, the first of the
    positions, and the head of a stream. As wholes all of them scale together.
    """
    narrowed = equations.copy()
    for one in rest:
        if narrowed.reduce(one.form):
            whole = narrowed.unknown(())
            narrowed.require_zero(minus(one.form, whole), None)
    return narrowed


def _without(equations: Equations, others: Iterable[Parameter]) -> Equations:
    narrowed = equations.copy()
    for other in others:
        narrowed.require_zero(other.form, None)
    return narrowed


def _each_alone(
    equations: Equations, along: list[Any], members: Container[str]
) -> Iterator[Alone]:
    """Yield each of some parameters with all others of them unscaled.

    One half of a component is held while the other half is looked at, and so
    on: n log n parameters are held in place of n squared. Most components fall
    apart long before the last half. Members that are left with nothing to
    scale by are omitted.

    Args:
        equations: those of the program.
        along: the members, and all that is followed.
        members: paths of the parameters.
    """
    for component in _components(equations, along):
        free = [p for p in _parameters(component) if p.path in members]
        if len(free) == 1:
            yield Alone(free[0], equations, component)
        if len(free) > 1:
            middle = len(free) // 2
            for held in (free[middle:], free[:middle]):
                narrowed = _without(equations, held)
                gone = set(map(id, held))
                left = [x for x in component if id(x) not in gone]
                yield from _each_alone(narrowed, left, members)


def _parameters(along: Iterable[Any]) -> list[Parameter]:
    return [x for x in along if isinstance(x, Parameter)]


def _watched(along: Iterable[Any]) -> list[Any]:
    return [x for x in along if not isinstance(x, Parameter)]


def _unknowns(equations: Equations, one: Watched) -> set[Variable]:
    return {term.variable for term in equations.reduce(one.form)}


def _components(equations: Equations, all_: Iterable[Any]) -> list[list[Any]]:
    """Return the sets that share unknowns, directly or through others.

    What has no unknowns is in none.
    """
    root: dict[Variable, Variable] = {}

    def find(variable: Variable) -> Variable:
        while (up := root.setdefault(variable, variable)) != variable:
            root[variable] = variable = root[up]
        return variable

    first: list[tuple[Variable, Any]] = []
    for one in all_:
        variables = list(map(find, _unknowns(equations, one)))
        if variables:
            root |= dict.fromkeys(variables, variables[0])
            first.append((variables[0], one))
    components: dict[Variable, list[Any]] = {}
    for variable, one in first:
        components.setdefault(find(variable), []).append(one)
    return list(components.values())


# -- one parameter ---------------------------------------------------------


def _symmetry(alone: Alone) -> Symmetry | None:
    one, equations, _ = alone
    form = equations.reduce(one.form)
    for digits in _options(equations, form, one.shape):
        found = _stated(alone, {one.path: digits}, [one])
        if found is not None:
            return found[one.path]
    return Symmetry(None) if _has_free_part(form) else None


def _has_free_part(form: Form) -> bool:
    """Return whether an unknown scales a part, and no other part inversely."""
    signs: dict[Variable, set[bool]] = {}
    for term, c in form.items():
        signs.setdefault(term.variable, set()).add(c > 0)
    return any(term.where and len(signs[term.variable]) == 1 for term in form)


def _options(
    equations: Equations, form: Form, shape: Shape
) -> list[tuple[Digit, ...]]:
    """Digits that groups might be told apart by, the most groups first."""
    options = {t.digits for t in form if not t.where}
    split = next((d for t in form for d, _ in t.where), None)
    if split is not None:
        parts = [
            equations.restrict(form, split, index, None)
            for index in range(split.count)
        ]
        # What all parts have in common, the parts told apart or not.
        inner = [set(_options(equations, part, shape)) for part in parts]
        common = set.intersection(*inner)
        options |= {(split, *digits) for digits in common} | common
    options |= {()}
    return sorted(options, key=lambda digits: -_count(digits, shape))


def _stated(
    alone: Alone,
    digits: Mapping[str, tuple[Digit, ...]],
    members: list[Parameter],
) -> dict[str, Symmetry] | None:
    """The groups that tell digits apart, if they scale freely and together.

    Each of the members scales by one and the same unknown, at the digits given
    for it, of which the statement keeps what it can.
    """
    groups = {m.path: statement(digits[m.path], m.shape) for m in members}
    shapes = {groups[m.path].group_shape(m.shape) for m in members}
    if len(shapes) > 1:
        return None
    equations = alone.equations.copy()
    scale = equations.unknown(shapes.pop())
    for member in members:
        place = _group_axes(groups[member.path], member.shape)
        wanted = move_digits(scale, place.__getitem__)
        equations.require_zero(minus(member.form, wanted), None)
    variables = _free(equations, scale, set(digits_of(scale)))
    if variables is None:
        return None
    scaled = tuple(
        x for x in alone.along if variables & _unknowns(equations, x)
    )
    return {path: Symmetry(group, scaled) for path, group in groups.items()}


def _group_axes(group: ScaleGroup, shape: Shape) -> dict[Digit, Digit]:
    """Where the digits of an array of the group shape are in the parameter."""
    blocks = dict(group.blocks)
    kept = [a for a in range(len(shape)) if a not in group.axes or a in blocks]
    place = {}
    for position, axis in enumerate(kept):
        count = blocks.get(axis, shape[axis])
        digit = Digit(axis, shape[axis] // count, count)
        place[Digit(position, 1, count)] = digit
    return place


def _free(
    equations: Equations, form: Form, digits: set[Digit]
) -> frozenset[Variable] | None:
    """Unknowns by which a form takes every value that there is, or None."""
    form = equations.reduce(form)
    split = next((d for t in form for d, _ in t.where), None)
    if split is None:
        for term in form:
            if _tells_apart(set(term.digits), digits):
                return frozenset([term.variable])
        return None
    found: frozenset[Variable] = frozenset()
    for index in range(split.count):
        part = equations.restrict(form, split, index, None)
        rest = _apart_from(digits, split)
        own = _free(equations, part, rest)
        if own is None or own & found:
            return None
        found |= own
    return found


def _tells_apart(own: set[Digit], digits: set[Digit]) -> bool:
    """Whether every index of some digits has one of its own."""
    return all(
        math.prod(d.count for d in own if d.axis == digit.axis) >= digit.count
        for digit in digits
    )


def _apart_from(digits: set[Digit], split: Digit) -> set[Digit]:
    """The digits that are left where one of them, or a part, is fixed."""
    return {
        d
        if d.axis != split.axis
        else d._replace(count=max(d.count // split.count, 1))
        for d in digits
    }


def _count(digits: Iterable[Digit], shape: Shape) -> int:
    """How many groups a statement makes of the digits."""
    group = statement(digits, shape)
    return math.prod(group.group_shape(shape))


def statement(digits: Iterable[Digit], shape: Shape) -> ScaleGroup:
    """The finest `ScaleGroup` whose groups the digits tell apart.

    Only whole axes and contiguous blocks can be stated: of the digits of an
    axis, those from the first on.

    Examples:
        >>> statement([Digit(1, 1, 8)], (3, 8))
        ScaleGroup(axes=(0,))
        >>> statement([Digit(1, 2, 4)], (3, 8))
        ScaleGroup(axes=(0, 1), blocks={1: 4})
        >>> statement([Digit(1, 1, 2)], (3, 8))
        ScaleGroup(axes=(0, 1))
    """
    axes, blocks = [], {}
    for axis, length in enumerate(shape):
        own = sorted(
            (d for d in digits if d.axis == axis),
            key=lambda d: d.stride,
            reverse=True,
        )
        inner = length
        for digit in own:
            if digit.stride * digit.count == inner:
                inner = digit.stride
        if length == 1 or inner > 1:
            axes.append(axis)
        if 1 < inner < length:
            blocks[axis] = length // inner
    return ScaleGroup(axes, blocks)


# -- several parameters ----------------------------------------------------


_Found = dict[str, Symmetry]


def _ties(equations: Equations, component: list[Any]) -> tuple[_Found, _Found]:
    """Return the smallest sets of parameters that scale together.

    Of sets that overlap one is kept. Second, the parameters that lost theirs.
    """
    # Kernels first: a tie is looked for where it matters most.
    rest = sorted(_parameters(component), key=lambda p: -math.prod(p.shape))
    watched = _watched(component)
    first = search = _Search(equations, rest, watched)
    found: _Found = {}
    for one in rest:
        if one.path in found:
            continue
        if search.overlaps(one, found):
            tied = [p for p in rest if p.path in found]
            search = _Search(_without(equations, tied), rest, watched)
        # What is in one tie is in no other.
        found |= search.tied(one)
    if search is first:
        return found, {}
    return found, _lost(first, [p for p in rest if p.path not in found])


def _lost(search: "_Search", rest: Iterable[Parameter]) -> _Found:
    """Return the parameters that could be tied, if others were not."""
    lost = {}
    for one in rest:
        others = tuple(path for path in search.tied(one) if path != one.path)
        if others:
            lost[one.path] = Symmetry(None, shared=others)
    return lost


class _Search:
    """A search for the smallest sets of parameters that scale together.

    Which set is left when as many others as possible stay unscaled depends on
    the order in which that is tried: the small ones first, or the large. Either
    order makes a *basis* of the parameters that are still free at their turn.
    Holding all of a basis but one leaves one way to scale. The parameters that
    scale then are a set that cannot be smaller. A parameter outside the basis
    scales in several of these ways; with others held in the same order it is
    the way of the last that is left. A parameter of fused parts may scale in
    none of the ways: then the others are held one by one.
    """

    def __init__(
        self,
        equations: Equations,
        rest: list[Parameter],
        watched: list[Any],
    ) -> None:
        self._equations = equations
        self._orders = [*rest[::-1], *watched], [*rest, *watched]
        self._ways = [self._last_ways(order) for order in self._orders]
        self._failed: set[Any] = set()

    def _last_ways(self, order: list[Any]) -> dict[str, Alone]:
        """Return the last way in which each parameter scales."""
        left = self._equations.copy()
        basis = []
        for one in _parameters(order):
            if left.reduce(one.form):
                left.require_zero(one.form, None)
                basis.append(one.path)
        ways = {
            way.one.path: way
            for way in _each_alone(self._equations, order, set(basis))
        }
        return {
            one.path: ways[path]
            for path in basis
            if path in ways
            for one in _parameters(ways[path].along)
        }

    def overlaps(self, one: Parameter, found: Container[str]) -> bool:
        """Return whether a set of one parameter has others that are tied."""
        return any(
            other.path in found
            for ways in self._ways
            if one.path in ways
            for other in _parameters(ways[one.path].along)
        )

    def tied(self, one: Parameter) -> dict[str, Symmetry]:
        """Return the groups of a smallest set with a parameter, if it has any.

        A set that cannot scale as one is not tried again for its others.
        """
        if not self._equations.reduce(one.form):
            return {}
        for index, ways in enumerate(self._ways):
            everything = Alone(one, self._equations, self._orders[index])
            way = ways.get(one.path, everything)
            freedom = _freedom(way.equations.reduce(one.form))
            key = index, way.one.path, freedom
            if key not in self._failed:
                tied = _least(way._replace(one=one))
                if tied:
                    return tied
                self._failed.add(key)
        return {}


def _freedom(form: Form) -> Any:
    """Return a key, equal for forms that vanish for the same reasons."""
    terms = list(form)
    if len(terms) == 1 and not terms[0].where:
        variable, digits, _ = terms[0]
        if len(set(digits)) == len(digits):
            return variable
    return frozenset(form.items())


def _least(way: Alone) -> dict[str, Symmetry]:
    """Return the groups of one parameter and of those that have to scale too.

    Those along that need not scale with it are held, one after the other.
    """
    one, equations, along = way
    freedom = _freedom(equations.reduce(one.form))
    for other in _parameters(along):
        if _freedom(equations.reduce(other.form)) != freedom:
            trial = _without(equations, [other])
            if left := trial.reduce(one.form):
                equations, freedom = trial, _freedom(left)
    members = [p for p in _parameters(along) if equations.reduce(p.form)]
    alone = Alone(one, equations, _watched(along))
    for digits in _joint_options(equations, one, members):
        found = _stated(alone, digits, members)
        if found is not None:
            tie = min(found)
            return {
                path: dataclasses.replace(
                    symmetry,
                    group=dataclasses.replace(symmetry.group, tie=tie),
                )
                for path, symmetry in found.items()
                if symmetry.group is not None
            }
    return {}


def _joint_options(
    equations: Equations, one: Parameter, members: list[Parameter]
) -> list[dict[str, tuple[Digit, ...]]]:
    """Digits of all members at which one unknown stands, the most first."""
    forms = {m.path: equations.reduce(m.form) for m in members}
    options = []
    for variable in {term.variable for term in forms[one.path]}:
        terms = {}
        for path, form in forms.items():
            own = [t for t in form if t.variable == variable and not t.where]
            if len(own) == 1:
                terms[path] = own[0].digits
        if len(terms) == len(members):
            options.append(terms)
    options.sort(key=lambda terms: -_count(terms[one.path], one.shape))
    return [*options, {m.path: () for m in members}]


# An unknown, and whether an array scales with it or with its inverse.
Signed = tuple[Variable, bool]


class Partners:
    """The parameters that scale whenever another does, by shared unknowns."""

    def __init__(
        self, equations: Equations, parameters: Iterable[Parameter]
    ) -> None:
        self._paths: list[str] = []
        self._own: dict[str, set[Signed]] = {}
        self._places: dict[Signed, list[int]] = {}
        for place, one in enumerate(parameters):
            self._paths.append(one.path)
            form = equations.reduce(one.form)
            self._own[one.path] = {(t.variable, c > 0) for t, c in form.items()}
            for signed in self._own[one.path]:
                self._places.setdefault(signed, []).append(place)

    def of(self, path: str) -> Iterator[str]:
        """Yield the paths of the partners of one, in the order of all."""
        own = {variable for variable, _ in self._own[path]}
        return self._with({(v, up) for v in own for up in (True, False)}, path)

    def against(self, path: str) -> Iterator[str]:
        """Yield the partners of one that scale down where it scales up."""
        return self._with({(v, not up) for v, up in self._own[path]}, path)

    def _with(self, wanted: Iterable[Signed], path: str) -> Iterator[str]:
        """Yield the paths, except one, that have some of the unknowns."""
        places = heapq.merge(*(self._places.get(v, ()) for v in wanted))
        for place, _ in itertools.groupby(places):
            if self._paths[place] != path:
                yield self._paths[place]


def is_elementwise(group: ScaleGroup, shape: Shape) -> bool:
    """Whether each element is a group: only its sign matters."""
    return group.group_size(shape) == 1 and bool(math.prod(shape))
