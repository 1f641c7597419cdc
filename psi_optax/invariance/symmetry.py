"""From the symmetries of a program to groups that can be stated.

What is left free by the equations may scale a parameter alone, several in the
same way, or one up and another one down. The first two are scale groups.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from fractions import Fraction

from psi_optax.groups import ScaleGroup
from psi_optax.invariance.algebra import (
    Digit,
    Equations,
    Form,
    Term,
    Variable,
)

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter: its shape, and the logarithms of its scales."""

    path: str
    shape: Shape
    form: Form


@dataclasses.dataclass(frozen=True)
class Symmetry:
    """The finest groups of a parameter, and the equations that leave them.

    A group of None is one of a part of the parameter, which a `ScaleGroup`
    cannot state.
    """

    group: ScaleGroup | None
    variables: frozenset[Variable]
    equations: Equations


def find_symmetries(
    equations: Equations, parameters: Iterable[Parameter]
) -> dict[str, Symmetry]:
    """The groups of each parameter that has any.

    First each parameter alone, all others unscaled; such groups can be scaled
    independently of each other. Then, of what has none, the smallest sets that
    scale together.
    """
    free = [p for p in parameters if equations.reduce(p.form)]
    found: dict[str, Symmetry] = {}
    for component in _components(equations, free):
        found |= _of_component(equations, component)
    return found


def _of_component(equations, component: list[Parameter]) -> dict[str, Symmetry]:
    found = {}
    rest = []
    joint = equations.copy()
    for one in component:
        others = [p for p in component if p is not one]
        alone = _without(equations, others)
        symmetry = _symmetry(alone, one)
        if symmetry is None:
            rest.append(one)
        else:
            found[one.path] = symmetry
            joint.vanish(one.form, None)
    # Kernels first: a tie is looked for where it matters most.
    rest.sort(key=lambda p: -math.prod(p.shape))
    for one in rest:
        if joint.reduce(one.form):
            tied = _tied(joint, one, rest)
            found |= tied
            # What is in one tie is in no other.
            for other in rest:
                if other.path in tied:
                    joint.vanish(other.form, None)
    return found


def _without(equations: Equations, others: Iterable[Parameter]) -> Equations:
    narrowed = equations.copy()
    for other in others:
        narrowed.vanish(other.form, None)
    return narrowed


def _components(equations, parameters) -> list[list[Parameter]]:
    """Parameters that share unknowns, directly or through others."""
    components: list[tuple[set[Variable], list[Parameter]]] = []
    for parameter in parameters:
        form = equations.reduce(parameter.form)
        variables, members = {t.variable for t in form}, [parameter]
        apart = []
        for other in components:
            if other[0] & variables:
                variables |= other[0]
                members = other[1] + members
            else:
                apart.append(other)
        components = [*apart, (variables, members)]
    return [members for _, members in components]


# -- one parameter ---------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Structure:
    kept: frozenset[Digit]
    variables: frozenset[Variable]
    whole: bool = True


def _symmetry(equations: Equations, one: Parameter) -> Symmetry | None:
    structure = _structure(equations, one.form, one.shape)
    if structure is None:
        return None
    group = statement(structure.kept, one.shape) if structure.whole else None
    return Symmetry(group, structure.variables, equations)


def _structure(equations, form: Form, shape: Shape) -> _Structure | None:
    form = equations.reduce(form)
    if not form:
        return None
    split = next((d for term in form for d, _ in term.where), None)
    if split is None:
        best = max(form, key=lambda term: _count(term.digits, shape))
        return _Structure(frozenset(best.digits), frozenset([best.variable]))
    parts = [
        _structure(equations, equations.part(form, split, i, None), shape)
        for i in range(split.count)
    ]
    some = [part for part in parts if part is not None]
    if not some:
        return None
    kept = frozenset.intersection(*(part.kept for part in some))
    variables = frozenset().union(*(part.variables for part in some))
    whole = len(some) == len(parts) and all(part.whole for part in some)
    if whole and len(variables) == sum(len(part.variables) for part in some):
        kept |= {split}
    elif whole and any(part.variables != variables for part in some):
        whole = False
    return _Structure(kept, variables, whole)


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


def _tied(
    equations: Equations, one: Parameter, rest: list[Parameter]
) -> dict[str, Symmetry]:
    """A smallest set of parameters with `one` that scale together.

    What is left when no other can be left unscaled depends on the order in
    which that is tried: the small ones first, or the large.
    """
    for order in (rest[::-1], rest):
        tied = _least(equations, one, order)
        if tied:
            return tied
    return {}


def _least(
    equations: Equations, one: Parameter, rest: list[Parameter]
) -> dict[str, Symmetry]:
    equations = equations.copy()
    for other in rest:
        if other is not one:
            trial = _without(equations, [other])
            if trial.reduce(one.form):
                equations = trial
    members = [p for p in rest if equations.reduce(p.form)]
    forms = {p.path: equations.reduce(p.form) for p in members}
    options = []
    for term, factor in forms[one.path].items():
        groups = _joint(term.variable, factor, members, forms)
        if groups is not None:
            size = math.prod(groups[one.path].group_shape(one.shape))
            options.append((size, term.variable, groups))
    if not options:
        return {}
    _, variable, groups = max(options, key=lambda option: option[0])
    tie = min(groups)
    return {
        path: Symmetry(
            dataclasses.replace(group, tie=tie),
            frozenset([variable]),
            equations,
        )
        for path, group in groups.items()
    }


def _joint(
    variable: Variable,
    factor: Fraction,
    members: list[Parameter],
    forms: Mapping[str, Form],
) -> dict[str, ScaleGroup] | None:
    """The groups in which one unknown scales all members alike."""
    terms: dict[str, Term] = {}
    for member in members:
        own = [t for t in forms[member.path] if t.variable == variable]
        if len(own) != 1 or own[0].where:
            return None
        if forms[member.path][own[0]] != factor:
            return None
        terms[member.path] = own[0]
    kept = set(range(len(variable.shape)))
    for member in members:
        kept &= _stated(terms[member.path], member.shape, kept)
    orders = {
        tuple(sorted(kept, key=lambda k: _place(terms[member.path].digits[k])))
        for member in members
    }
    if len(orders) > 1:
        kept = set()
    return {
        member.path: statement(
            [terms[member.path].digits[k] for k in kept], member.shape
        )
        for member in members
    }


def _place(digit: Digit) -> tuple:
    return (digit.axis, -digit.stride)


def _stated(term: Term, shape: Shape, among: set[int]) -> set[int]:
    """Those dimensions of a variable that a statement can tell apart."""
    kept = set()
    for axis, length in enumerate(shape):
        inner = length
        own = [k for k in among if term.digits[k].axis == axis]
        for k in sorted(own, key=lambda k: -term.digits[k].stride):
            digit = term.digits[k]
            if digit.stride * digit.count == inner:
                inner = digit.stride
                kept.add(k)
    return kept


def partners(equations: Equations, one: Parameter, all_: Iterable[Parameter]):
    """The parameters that scale whenever `one` does, without a group."""
    form = equations.reduce(one.form)
    own = {term.variable for term in form}
    return [
        p.path
        for p in all_
        if p.path != one.path
        and own & {t.variable for t in equations.reduce(p.form)}
    ]


def is_elementwise(group: ScaleGroup, shape: Shape) -> bool:
    """Whether each element is a group: only its sign matters."""
    return group.group_size(shape) == 1 and bool(math.prod(shape))
