r"""Linear forms in the logarithms of scales.

Multiply every element of every parameter by a positive number \(e^s\) of its
own. A value computed from them *scales* if each element x of it becomes
\(e^{L} x\) with L linear in the numbers s: its *form*.

The unknowns are `Variable`s, arrays of numbers s. A form is a sum of terms, a
coefficient times a variable whose indices are *digits* of the indices of the
array that it belongs to: the digit (axis, stride, count) of an index i is
\(\lfloor i/\mathrm{stride}\rfloor \bmod \mathrm{count}\), so that reshapes move
digits from axis to axis, and a block of channels is a digit as well. A term may
be limited to where some digits have given values, as after a slice or a
concatenation.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

Axis = int | str

# Beyond this many parts, a part of an axis is not told from the others.
MAX_PARTS = 64


class Digit(NamedTuple):
    """A digit of the index along an axis.

    The axis is a number, or the name of an index that is not an axis of the
    array: of a mesh, of a loop, or one looked up in a table, which is itself
    a function of the indices along the axes `over`.
    """

    axis: Axis
    stride: int
    count: int
    over: tuple[int, ...] = ()

    @property
    def is_lookup(self) -> bool:
        """Whether it is an index that the program computes."""
        return isinstance(self.axis, str) and self.axis.startswith("lookup")


class Variable(NamedTuple):
    """An array of unknown logarithms of scales, none of length 1."""

    key: int
    shape: tuple[int, ...]


class Term(NamedTuple):
    """A variable at these digits, where the conditions hold, 0 elsewhere."""

    variable: Variable
    digits: tuple[Digit, ...]
    where: tuple[tuple[Digit, int], ...] = ()

    @property
    def all_digits(self) -> tuple[Digit, ...]:
        """Those of the variable and those of the conditions."""
        return (*self.digits, *(digit for digit, _ in self.where))


Form = dict[Term, Fraction]
ZERO: Form = {}


def times(form: Form, factor: Fraction | int) -> Form:
    """The form multiplied by a number."""
    return {term: c * factor for term, c in form.items()} if factor else {}


def total(terms: Iterable[tuple[Term, Fraction]], start: Form = ZERO) -> Form:
    """Return the sum of terms with their coefficients, and of a form."""
    form = dict(start)
    for term, c in terms:
        if term in form:
            c += form[term]
        if c:
            form[term] = c
        else:
            del form[term]
    return form


def plus(a: Form, b: Form) -> Form:
    """The sum of two forms."""
    return total(b.items(), a)


def minus(a: Form, b: Form) -> Form:
    """The difference of two forms."""
    return plus(a, times(b, -1))


def move_digits(form: Form, move: Callable[[Digit], Digit]) -> Form:
    """Replaces every digit; the new ones must be those of another array."""

    def moved(term: Term) -> Term:
        where = conditions((move(d), i) for d, i in term.where)
        return Term(term.variable, tuple(map(move, term.digits)), where)

    return total((moved(term), c) for term, c in form.items())


def move_axes(form: Form, axes: Mapping[Any, Any]) -> Form:
    """Renames axes; each that the form depends on must be among them."""

    def move(digit: Digit) -> Digit:
        axis = digit.axis
        return digit._replace(
            axis=axes.get(axis, axis) if isinstance(axis, str) else axes[axis],
            # An axis of length 1 may have gone.
            over=tuple(axes[a] for a in digit.over if a in axes),
        )

    return move_digits(form, move)


def moved_axes(
    axes: Iterable[Axis], place: Mapping[int, int]
) -> frozenset[Axis]:
    """Return axes where they are now; those of a mesh stay, others may go."""
    return frozenset(
        a if isinstance(a, str) else place[a]
        for a in axes
        if isinstance(a, str) or a in place
    )


def digits_of(form: Form) -> list[Digit]:
    """The digits that a form depends on, in a fixed order."""
    found = (digit for term in form for digit in term.all_digits)
    return list(dict.fromkeys(found))


def digits_along(form: Form, axis: Axis) -> list[Digit]:
    """Those digits that change along an axis."""
    return [d for d in digits_of(form) if axis == d.axis or axis in d.over]


def conditions(pairs: Iterable[tuple[Digit, int]]) -> tuple:
    """Conditions in a fixed order, so that equal ones are equal."""
    return tuple(sorted(pairs, key=repr))


def compose(form: Form, outer: Term) -> Form:
    """A form over the dimensions of a variable, at the digits of a term."""

    def move(digit: Digit) -> Digit:
        at = outer.digits[int(digit.axis)]
        return at._replace(stride=at.stride * digit.stride, count=digit.count)

    composed = []
    for term, c in move_digits(form, move).items():
        values = dict(outer.where)
        if all(values.setdefault(d, i) == i for d, i in term.where):
            where = conditions(values.items())
            composed.append((term._replace(where=where), c))
    return total(composed)


def completed(form: Form) -> Form:
    """Drops conditions that hold for one value of a digit or another."""
    parts: dict[tuple[Term, Digit, Fraction], list[Term]] = {}
    for term, c in form.items():
        for digit, index in term.where:
            where = tuple(w for w in term.where if w != (digit, index))
            rest = term._replace(where=where)
            parts.setdefault((rest, digit, c), []).append(term)
    for (rest, digit, c), terms in parts.items():
        if len(terms) == digit.count:
            form = {t: d for t, d in form.items() if t not in terms}
            return completed(plus(form, {rest: c}))
    return form


def crosses(digit: Digit, stride: int) -> bool:
    """Whether a stride cuts a digit in two whole ones."""
    end = digit.stride * digit.count
    inside = digit.stride < stride < end
    return inside and stride % digit.stride == 0 and end % stride == 0


def lies_in(digit: Digit, outer: Digit) -> bool:
    """Whether a digit is a part of another one."""
    end = outer.stride * outer.count
    return (
        digit.axis == outer.axis
        and outer.stride <= digit.stride
        and digit.stride * digit.count <= end
        and digit.over == outer.over
    )


def halves(digit: Digit, stride: int) -> list[Digit]:
    """The two digits that a stride cuts one into, the slower first."""
    inner = stride // digit.stride
    return [
        digit._replace(stride=stride, count=digit.count // inner),
        digit._replace(count=inner),
    ]


def clash(digits: list[Digit]) -> tuple[Digit, int, Digit] | None:
    """A digit that overlaps another one, and where the other one ends."""
    for a, b in itertools.permutations(digits, 2):
        if a.axis != b.axis or a == b:
            continue
        ends = (a.stride, a.stride * a.count)
        low, high = b.stride, b.stride * b.count
        if low >= ends[1] or high <= ends[0]:
            continue
        if a.over != b.over:
            return a, a.stride, b
        for stride in (low, high):
            if ends[0] < stride < ends[1]:
                return a, stride, b
    return None


def split_conditions(form: Form, digit: Digit, stride: int) -> Form:
    """The form with conditions on two halves in place of one digit."""
    outer, inner = halves(digit, stride)
    split = []
    for term, c in form.items():
        values = dict(term.where)
        possible = True
        if digit in values:
            index = values.pop(digit)
            parts = {outer: index // inner.count, inner: index % inner.count}
            possible = all(
                values.setdefault(d, i) == i for d, i in parts.items()
            )
        where = conditions(values.items())
        if possible:
            split.append((term._replace(where=where), c))
    return total(split)
