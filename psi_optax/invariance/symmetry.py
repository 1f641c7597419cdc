"""From the symmetries of a program to groups that can be stated.

What is left free by the equations may scale a parameter alone, several in the
same way, or one up and another one down. The first two are scale groups.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping

from psi_optax.groups import ScaleGroup
from psi_optax.invariance.equations import Equations
from psi_optax.invariance.forms import (
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
    equations: Equations,
    parameters: Iterable[Parameter],
    still: Iterable[Parameter] = (),
) -> dict[str, Symmetry]:
    """The groups of each parameter that has any.

    First each parameter alone, all others unscaled; such groups can be scaled
    independently of each other. Then, of what has none, the smallest sets that
    scale together. What stands still, for want of a gradient, is in no group.
    """
    equations = _without(equations, still)
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


def _symmetry(equations: Equations, one: Parameter) -> Symmetry | None:
    form = equations.reduce(one.form)
    if not form:
        return None
    for digits in _options(equations, form, one.shape):
        found = _stated(equations, {one.path: digits}, [one])
        if found is not None:
            return found[one.path]
    if any(term.where for term in form):
        return Symmetry(None, frozenset(), equations)
    return None


def _options(
    equations: Equations, form: Form, shape: Shape
) -> list[tuple[Digit, ...]]:
    """Digits that groups might be told apart by, the most groups first."""
    options = {t.digits for t in form if not t.where}
    split = next((d for t in form for d, _ in t.where), None)
    if split is not None:
        parts = [
            equations.part(form, split, index, None)
            for index in range(split.count)
        ]
        # What all parts have in common, the parts told apart or not.
        inner = [set(_options(equations, part, shape)) for part in parts]
        common = set.intersection(*inner)
        options |= {(split, *digits) for digits in common} | common
    options |= {()}
    return sorted(options, key=lambda digits: -_count(digits, shape))


def _stated(
    equations: Equations,
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
    equations = equations.copy()
    scale = equations.unknown(shapes.pop())
    for member in members:
        place = _group_axes(groups[member.path], member.shape)
        wanted = move_digits(scale, place.__getitem__)
        equations.vanish(minus(member.form, wanted), None)
    variables = _free(equations, scale, set(digits_of(scale)))
    if variables is None:
        return None
    return {
        path: Symmetry(group, variables, equations)
        for path, group in groups.items()
    }


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
        part = equations.part(form, split, index, None)
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
    for digits in _joint_options(equations, one, members):
        found = _stated(equations, digits, members)
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
