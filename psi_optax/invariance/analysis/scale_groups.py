"""From symmetries of parameters to groups that a `ScaleGroup` can state."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from psi_optax.groups import ScaleGroup
from psi_optax.invariance.analysis.equations import Equations
from psi_optax.invariance.analysis.index_digits import (
    Digit,
)
from psi_optax.invariance.analysis.isolation import Isolated, unknowns
from psi_optax.invariance.analysis.linear_forms import (
    Form,
    HasForm,
    Variable,
    digits_of,
    minus,
    move_index_digits,
)
from psi_optax.invariance.analysis.parameters import Parameter
from psi_optax.invariance.analysis.values import Shape

Digits = tuple[Digit, ...]


@dataclasses.dataclass(frozen=True)
class FinestGroups:
    """The finest groups of a parameter.

    Attributes:
        group: the groups; None if a part of the parameter scales, which no
            `ScaleGroup` states, or if they overlap with a tie.
        scaled: everything that is watched and scales with them.
        shared: the paths of the others of a tie that was given up for another.
    """

    group: ScaleGroup | None
    scaled: tuple[HasForm, ...] = ()
    shared: tuple[str, ...] = ()


def groups_of_one(isolated: Isolated) -> FinestGroups | None:
    """Return the finest groups of one parameter; None if it cannot scale."""
    parameter, equations, _ = isolated
    form = equations.reduce(parameter.form)
    for digits in _options(equations, form, parameter.shape):
        found = groups_by(isolated, {parameter.path: digits}, [parameter])
        if found is not None:
            return found[parameter.path]
    return FinestGroups(None) if _has_free_part(form) else None


def _has_free_part(form: Form) -> bool:
    """Check that an unknown scales a part, and no other part inversely."""
    signs: dict[Variable, set[bool]] = {}
    for term, c in form.items():
        signs.setdefault(term.variable, set()).add(c > 0)
    return any(term.where and len(signs[term.variable]) == 1 for term in form)


def _options(equations: Equations, form: Form, shape: Shape) -> list[Digits]:
    """Return digits that may distinguish groups, those of most groups first."""
    options = {t.digits for t in form if not t.where}
    case = next((d for t in form for d, _ in t.where), None)
    if case is not None:
        parts = [
            equations.restrict(form, case, index, None)
            for index in range(case.count)
        ]
        # Digits common to all parts, with and without that of the part.
        inner = [set(_options(equations, part, shape)) for part in parts]
        common = set.intersection(*inner)
        options |= {(case, *digits) for digits in common} | common
    options |= {()}
    return sorted(options, key=lambda digits: -group_count(digits, shape))


def groups_by(
    isolated: Isolated,
    digits: Mapping[str, Digits],
    members: Sequence[Parameter],
) -> dict[str, FinestGroups] | None:
    """Return the groups that digits distinguish, if they scale freely.

    All members scale by one unknown, at the digits given for each.

    Args:
        isolated: one of the members, and the equations.
        digits: for the path of each member, the digits. Of these, a
            `ScaleGroup` keeps those that it can state.
        members: the parameters that scale together.
    """
    groups = {m.path: finest_group(digits[m.path], m.shape) for m in members}
    shapes = {groups[m.path].group_shape(m.shape) for m in members}
    if len(shapes) > 1:
        return None
    equations = isolated.equations.copy()
    scale = equations.unknown(shapes.pop())
    for member in members:
        positions = _group_digits(groups[member.path], member.shape)
        wanted = move_index_digits(scale, positions.__getitem__)
        equations.require_zero(minus(member.form, wanted), None)
    variables = _free_variables(equations, scale, set(digits_of(scale)))
    if variables is None:
        return None
    scaled = tuple(
        x for x in isolated.followed if variables & unknowns(equations, x)
    )
    return {path: FinestGroups(group, scaled) for path, group in groups.items()}


def _group_digits(group: ScaleGroup, shape: Shape) -> dict[Digit, Digit]:
    """Map digits of an array of the group shape to those of the parameter."""
    blocks = dict(group.blocks)
    kept = [a for a in range(len(shape)) if a not in group.axes or a in blocks]
    digits = {}
    for position, axis in enumerate(kept):
        count = blocks.get(axis, shape[axis])
        digit = Digit(axis, shape[axis] // count, count)
        digits[Digit(position, 1, count)] = digit
    return digits


def _free_variables(
    equations: Equations, form: Form, digits: set[Digit]
) -> frozenset[Variable] | None:
    """Return variables by which a form can take all values.

    Returns None if there are no such variables.
    """
    form = equations.reduce(form)
    case = next((d for t in form for d, _ in t.where), None)
    if case is None:
        for term in form:
            if _distinguish(set(term.digits), digits):
                return frozenset([term.variable])
        return None
    found: frozenset[Variable] = frozenset()
    for index in range(case.count):
        part = equations.restrict(form, case, index, None)
        own = _free_variables(equations, part, _without_case(digits, case))
        if own is None or own & found:
            return None
        found |= own
    return found


def _distinguish(own: set[Digit], digits: set[Digit]) -> bool:
    """Check that two indices that differ in `digits` differ in `own`."""
    return all(
        math.prod(d.count for d in own if d.axis == digit.axis) >= digit.count
        for digit in digits
    )


def _without_case(digits: set[Digit], case: Digit) -> set[Digit]:
    """Return the digits that remain where one of them, or a part, is fixed."""
    return {
        d
        if d.axis != case.axis
        else d._replace(count=max(d.count // case.count, 1))
        for d in digits
    }


def group_count(digits: Iterable[Digit], shape: Shape) -> int:
    """Return the number of groups that digits distinguish."""
    group = finest_group(digits, shape)
    return math.prod(group.group_shape(shape))


def finest_group(digits: Iterable[Digit], shape: Shape) -> ScaleGroup:
    """Return the finest `ScaleGroup` whose groups the digits distinguish.

    Only whole axes and contiguous blocks can be stated: of the digits of an
    axis, those from the slowest on.

    Examples:
        >>> finest_group([Digit(1, 1, 8)], (3, 8))
        ScaleGroup(axes=(0,))
        >>> finest_group([Digit(1, 2, 4)], (3, 8))
        ScaleGroup(axes=(0, 1), blocks={1: 4})
        >>> finest_group([Digit(1, 1, 2)], (3, 8))
        ScaleGroup(axes=(0, 1))
    """
    digits = list(digits)
    axes, blocks = [], {}
    for axis, length in enumerate(shape):
        own = [d for d in digits if d.axis == axis]
        inner = length
        for digit in sorted(own, key=lambda d: -d.stride):
            if digit.end == inner:
                inner = digit.stride
        if length == 1 or inner > 1:
            axes.append(axis)
        if 1 < inner < length:
            blocks[axis] = length // inner
    return ScaleGroup(axes, blocks)


def is_elementwise(group: ScaleGroup, shape: Shape) -> bool:
    """Check that each element is a group, so that only its sign matters."""
    return group.group_size(shape) == 1 and bool(math.prod(shape))
