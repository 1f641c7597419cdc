r"""Linear forms in the logarithms of scales.

Multiply every element of every parameter by a positive number \(e^s\) of its
own. A value computed from them *scales* if each of its elements x becomes
\(e^{L} x\) with L linear in the numbers s. L is the *form* of the value.

The unknowns are `Variable`s, arrays of numbers s. A form is a sum of terms. A
term is a coefficient times a variable, indexed by *digits* of the indices of
the array that the form belongs to. The digit (axis, stride, count) of an index
i is \(\lfloor i/\mathrm{stride}\rfloor \bmod \mathrm{count}\). A reshape moves
digits from axis to axis, and a block of channels is a digit as well. A term may
hold only where some digits have given values, as after a slice or a
concatenation.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

from psi_optax.invariance.analysis.index_digits import Axis, Digit, halves

# Beyond this many parts, the parts of an axis are not distinguished.
MAX_PARTS = 64


Condition = tuple[Digit, int]
Conditions = tuple[Condition, ...]


class Variable(NamedTuple):
    """An array of unknown logarithms of scales, without axes of length 1."""

    key: int
    shape: tuple[int, ...]


class Term(NamedTuple):
    """A variable at some digits where the conditions hold, 0 elsewhere."""

    variable: Variable
    digits: tuple[Digit, ...]
    where: Conditions = ()

    @property
    def all_digits(self) -> tuple[Digit, ...]:
        """The digits of the variable and those of the conditions."""
        return (*self.digits, *(digit for digit, _ in self.where))


Form = dict[Term, Fraction]
ZERO: Form = {}


# -- arithmetic --------------------------------------------------------------


def times(form: Form, factor: Fraction | int) -> Form:
    """Multiply a form by a number."""
    if factor == 1:
        return form
    return {term: c * factor for term, c in form.items()} if factor else {}


def total(terms: Iterable[tuple[Term, Fraction]], start: Form = ZERO) -> Form:
    """Add terms with their coefficients to a form."""
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
    """Add two forms."""
    return total(b.items(), a)


def minus(a: Form, b: Form) -> Form:
    """Subtract a form from another."""
    return plus(a, times(b, -1))


# -- axes --------------------------------------------------------------------


def move_index_digits(form: Form, move: Callable[[Digit], Digit]) -> Form:
    """Replace every digit of a form; the result belongs to another array."""

    def moved(term: Term) -> Term:
        where = term.where
        if where:
            where = conditions((move(d), i) for d, i in where)
        return Term(term.variable, tuple(map(move, term.digits)), where)

    return total((moved(term), c) for term, c in form.items())


def move_axes(form: Form, axes: Mapping[Any, Any]) -> Form:
    """Rename the axes of a form; those of the array must be in `axes`."""

    def move(digit: Digit) -> Digit:
        axis = digit.axis
        return digit._replace(
            axis=axes.get(axis, axis) if isinstance(axis, str) else axes[axis],
            # An axis of length 1 may be gone.
            over=tuple(axes[a] for a in digit.over if a in axes),
        )

    return move_index_digits(form, move)


def moved_axes(
    axes: Iterable[Axis], positions: Mapping[int, int]
) -> frozenset[Axis]:
    """Return the new positions of axes; axes of a mesh stay, others may go."""
    return frozenset(
        a if isinstance(a, str) else positions[a]
        for a in axes
        if isinstance(a, str) or a in positions
    )


def remaining_axes(rank: int, removed: Collection[Axis]) -> dict[int, int]:
    """Return the new position of each axis that is not removed."""
    kept = [a for a in range(rank) if a not in removed]
    return {axis: position for position, axis in enumerate(kept)}


# -- digits ------------------------------------------------------------------


def digits_of(form: Form) -> list[Digit]:
    """Return the digits that a form depends on, in a fixed order."""
    found = (digit for term in form for digit in term.all_digits)
    return list(dict.fromkeys(found))


def digits_along(form: Form, axis: Axis) -> list[Digit]:
    """Return the digits of a form that change along an axis."""
    return [d for d in digits_of(form) if axis == d.axis or axis in d.over]


# -- conditions --------------------------------------------------------------


def conditions(pairs: Iterable[Condition]) -> Conditions:
    """Return conditions in a fixed order, so that equal ones compare equal."""
    return tuple(sorted(pairs, key=repr))


def compose(form: Form, outer: Term) -> Form:
    """Evaluate a form over the dimensions of a variable at a term's digits."""
    if not form or _is_whole(outer):
        return form

    def move(digit: Digit) -> Digit:
        at = outer.digits[int(digit.axis)]
        stride = at.stride * digit.stride
        return Digit(at.axis, stride, digit.count, at.over)

    form = move_index_digits(form, move)
    if not (outer.where or any(term.where for term in form)):
        return form
    composed = []
    for term, c in form.items():
        values = dict(outer.where)
        if all(values.setdefault(d, i) == i for d, i in term.where):
            where = conditions(values.items())
            composed.append((term._replace(where=where), c))
    return total(composed)


def _is_whole(term: Term) -> bool:
    """Check that a term is its variable, everywhere and axis by axis."""
    variable, digits, where = term
    return not where and all(
        digit == (axis, 1, count, ())
        for axis, (digit, count) in enumerate(
            zip(digits, variable.shape, strict=True)
        )
    )


def merge_cases(form: Form) -> Form:
    """Merge terms that differ only in a condition and cover all its values."""
    cases: dict[tuple[Term, Digit, Fraction], list[Term]] = {}
    for term, c in form.items():
        for digit, index in term.where:
            where = tuple(w for w in term.where if w != (digit, index))
            rest = term._replace(where=where)
            cases.setdefault((rest, digit, c), []).append(term)
    for (rest, digit, c), terms in cases.items():
        if len(terms) == digit.count:
            form = {t: d for t, d in form.items() if t not in terms}
            return merge_cases(plus(form, {rest: c}))
    return form


def split_conditions(form: Form, digit: Digit, stride: int) -> Form:
    """Replace conditions on a digit by conditions on its two halves."""
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


class HasForm(Protocol):
    """Anything that scales, as a parameter does."""

    @property
    def form(self) -> Form:
        """The logarithms of its scales."""
