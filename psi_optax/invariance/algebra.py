r"""Linear forms in the logarithms of scales, and equations between them.

Multiply every element of every parameter by a positive number \(e^s\) of its
own. A value computed from them *scales* if each element x of it becomes
\(e^{L} x\) with L linear in the numbers s: its *form*. Each operation that is
to keep this asks for linear equations (a sum needs terms that scale alike), and
what solves them all is the symmetry of the program.

The unknowns are `Variable`s, arrays of numbers s. A form is a sum of terms, a
coefficient times a variable whose indices are *digits* of the indices of the
array that it belongs to: the digit (axis, stride, count) of an index i is
\(\lfloor i/\mathrm{stride}\rfloor \bmod \mathrm{count}\), so that reshapes move
digits from axis to axis, and a block of channels is a digit as well. A term may
be limited to where some digits have given values, as after a slice or a
concatenation.

Equations are solved as they come, by substitution. Where no exact solution can
be written in this way, variables are made uniform or zero until there is one:
that loses symmetries and never invents one.
"""

import itertools
import math
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


def plus(a: Form, b: Form) -> Form:
    """The sum of two forms."""
    total = dict(a)
    for term, c in b.items():
        total[term] = total.get(term, Fraction(0)) + c
        if not total[term]:
            del total[term]
    return total


def minus(a: Form, b: Form) -> Form:
    """The difference of two forms."""
    return plus(a, times(b, -1))


def move_digits(form: Form, move: Callable[[Digit], Digit]) -> Form:
    """Replaces every digit; the new ones must be those of another array."""
    moved: Form = {}
    for term, c in form.items():
        where = _where((move(d), i) for d, i in term.where)
        new = Term(term.variable, tuple(map(move, term.digits)), where)
        moved = plus(moved, {new: c})
    return moved


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


def digits_of(form: Form) -> list[Digit]:
    """The digits that a form depends on, in a fixed order."""
    found = (digit for term in form for digit in term.all_digits)
    return list(dict.fromkeys(found))


def digits_along(form: Form, axis: Axis) -> list[Digit]:
    """Those digits that change along an axis."""
    return [d for d in digits_of(form) if axis == d.axis or axis in d.over]


class Solved(NamedTuple):
    """What a variable is, in terms of others, as an array of its shape."""

    form: Form  # kept in terms of variables that were free when last looked at
    meaning: Form  # as it was substituted
    reason: object


class Equations:
    """All that is known of the variables so far."""

    def __init__(self) -> None:
        self._solved: dict[Variable, Solved] = {}
        self._count = 0
        self._reason: object = None

    def copy(self) -> "Equations":
        """A system that can be narrowed without narrowing this one."""
        other = Equations()
        other._solved = dict(self._solved)
        other._count = self._count
        return other

    def variable(self, shape: Iterable[int]) -> Variable:
        """A new unknown."""
        self._count += 1
        return Variable(self._count, tuple(shape))

    def unknown(self, shape: Iterable[int]) -> Form:
        """A new unknown for every element of an array."""
        digits = [Digit(a, 1, n) for a, n in enumerate(shape) if n != 1]
        return {self._term(digits): Fraction(1)}

    def solved(self, variable: Variable) -> Solved | None:
        """How a variable was substituted; None if it is free."""
        return self._solved.get(variable)

    def reduce(self, form: Form) -> Form:
        """The form in terms of free variables."""
        if not any(term.variable in self._solved for term in form):
            return form
        reduced: Form = {}
        for term, c in form.items():
            one = {term: Fraction(1)}
            if term.variable in self._solved:
                one = _compose(self._reduced(term.variable), term)
            reduced = plus(reduced, times(one, c))
        return _completed(reduced)

    def _reduced(self, variable: Variable) -> Form:
        solved = self._solved[variable]
        form = self.reduce(solved.form)
        if form is not solved.form:
            self._solved[variable] = solved._replace(form=form)
        return form

    def vanish(self, form: Form, reason: object) -> None:
        """Makes a form zero everywhere."""
        self._reason = reason
        self._vanish(form)

    def uniform(self, form: Form, digits: Iterable[Digit], reason) -> None:
        """Makes a form independent of some digits."""
        self._reason = reason
        for digit in digits:
            self._uniform(form, digit)

    def cut(self, form: Form, axis: Axis, stride: int, reason) -> Form:
        """The form with no digit that reaches across a stride of an axis."""
        self._reason = reason
        while True:
            form = self.reduce(form)
            across = [
                d
                for d in digits_of(form)
                if d.axis == axis and d.stride < stride < d.stride * d.count
            ]
            if not across:
                return form
            if _crosses(across[0], stride):
                form = self._split_digit(form, across[0], stride)
            else:
                self._drop(form, across[0])

    def part(self, form: Form, digit: Digit, index: int, reason) -> Form:
        """The form where a digit has a value."""
        self._reason = reason
        return self._part(form, digit, index)

    # -- solving ----------------------------------------------------------

    def _vanish(self, form: Form) -> None:
        while form := self._refine(form):
            split = next((d for t in form for d, _ in t.where), None)
            if split is not None:
                for index in range(split.count):
                    self._vanish(self._part(form, split, index))
                return
            pivot = self._pivot(form)
            if pivot is None:
                self._disentangle(form)
                continue
            rest = {t: c for t, c in form.items() if t != pivot}
            beyond = [d for d in digits_of(rest) if d not in pivot.digits]
            if not beyond:
                self._solve(pivot, times(rest, -1 / form[pivot]))
                return
            self._uniform(rest, beyond[0])

    def _uniform(self, form: Form, digit: Digit) -> None:
        form = self._refine(form, [digit])
        inner = [
            d for d in digits_of(form) if d.axis == digit.axis and _in(d, digit)
        ]
        for d in inner:
            self._uniform_along(self._refine(form, [digit]), d)

    def _uniform_along(self, form: Form, digit: Digit) -> None:
        form = {t: c for t, c in form.items() if digit in t.all_digits}
        if any(digit == d for term in form for d, _ in term.where):
            first = self._part(form, digit, 0)
            for index in range(1, digit.count):
                self._vanish(minus(self._part(form, digit, index), first))
            return
        if not form:
            return
        pivot = self._pivot(form)
        union = digits_of(form)
        if pivot is None or set(union) - set(pivot.digits) or pivot.where:
            # Each term by itself; the first may settle others.
            self._forget(next(iter(form)), digit)
            self._uniform_along(self._refine(form, [digit]), digit)
            return
        mean = {self._term([d for d in union if d != digit]): Fraction(1)}
        rest = {t: c for t, c in form.items() if t != pivot}
        self._solve(pivot, times(minus(mean, rest), 1 / form[pivot]))

    def _pivot(self, form: Form) -> Term | None:
        """A term to solve for: one with the most digits, its variable alone."""
        counts: dict[Variable, int] = {}
        for term in form:
            counts[term.variable] = counts.get(term.variable, 0) + 1
        able = [
            term
            for term in form
            if counts[term.variable] == 1
            and not term.where
            and len(set(term.digits)) == len(term.digits)
        ]
        return max(able, key=lambda term: len(term.digits), default=None)

    def _disentangle(self, form: Form) -> None:
        """Makes a variable that stands at different digits uniform in them."""
        by_variable: dict[Variable, list[Term]] = {}
        for term in form:
            by_variable.setdefault(term.variable, []).append(term)
        for variable, terms in by_variable.items():
            for place in range(len(variable.shape)):
                found = {term.digits[place] for term in terms}
                repeated = any(
                    t.digits.count(t.digits[place]) > 1 for t in terms
                )
                if len(found) > 1 or repeated:
                    self._forget(terms[0], terms[0].digits[place])
                    return
        # The same digits and another coefficient cannot be: terms are unique.
        raise AssertionError(f"no equation is left in {form}")

    def _forget(self, term: Term, digit: Digit) -> None:
        """Makes one variable uniform along one of its dimensions."""
        variable, place = term.variable, term.digits.index(digit)
        kept = [k for k in range(len(variable.shape)) if k != place]
        new = self.variable(variable.shape[k] for k in kept)
        digits = tuple(Digit(k, 1, variable.shape[k]) for k in kept)
        self._set(variable, {Term(new, digits): Fraction(1)})

    def _solve(self, pivot: Term, form: Form) -> None:
        """Substitutes a form, whose digits the pivot has, for its variable."""
        place = {d: k for k, d in enumerate(pivot.digits)}

        def move(digit: Digit) -> Digit:
            return Digit(place[digit], 1, digit.count)

        self._set(pivot.variable, move_digits(form, move))

    def _set(self, variable: Variable, form: Form) -> None:
        assert variable not in self._solved
        self._solved[variable] = Solved(form, form, self._reason)

    def _term(self, digits: Iterable[Digit]) -> Term:
        digits = tuple(digits)
        return Term(self.variable(d.count for d in digits), digits)

    # -- digits -----------------------------------------------------------

    def _refine(self, form: Form, more: Iterable[Digit] = ()) -> Form:
        """Splits digits until any two of the form are equal or disjoint."""
        more = list(more)
        while True:
            form = self.reduce(form)
            digits = digits_of(form)
            clash = _clash([*digits, *more])
            if clash is None:
                return form
            digit, stride, other = clash
            if not _crosses(digit, stride):
                self._drop(form, digit if digit in digits else other)
            elif digit in digits:
                form = self._split_digit(form, digit, stride)
            if digit in more and _crosses(digit, stride):
                more.remove(digit)
                more += _halves(digit, stride)

    def _split_digit(self, form: Form, digit: Digit, stride: int) -> Form:
        """The form with one digit, which stands in it, written as two."""
        holder = next((t for t in form if digit in t.digits), None)
        if holder is None:
            return _split_conditions(form, digit, stride)
        place = holder.digits.index(digit)
        self._split(holder.variable, place, digit, stride)
        return self.reduce(form)

    def _drop(self, form: Form, digit: Digit) -> None:
        """Makes a form independent of a digit that fits no other."""
        holder = next((t for t in form if digit in t.digits), None)
        if holder is None:
            self._erase(form)
        else:
            self._forget(holder, digit)

    def _erase(self, form: Form) -> None:
        """Makes all variables of a form zero: nothing else can be said."""
        for variable in {term.variable for term in form}:
            self._set(variable, {})

    def _split(self, variable, place: int, digit: Digit, stride: int) -> None:
        """Writes one dimension of a variable as two."""
        inner = stride // digit.stride
        shape = variable.shape
        new = self.variable(
            (*shape[:place], digit.count // inner, inner, *shape[place + 1 :])
        )
        digits = [Digit(k, 1, n) for k, n in enumerate(shape)]
        digits[place : place + 1] = [
            Digit(place, inner, digit.count // inner),
            Digit(place, 1, inner),
        ]
        self._set(variable, {Term(new, tuple(digits)): Fraction(1)})

    def _part(self, form: Form, digit: Digit, index: int) -> Form:
        form = self._refine(form, [digit])
        inner = [
            d for d in digits_of(form) if d.axis == digit.axis and _in(d, digit)
        ]
        for d in inner:
            stride = d.stride // digit.stride
            form = self._part_at(form, d, index // stride % d.count)
        return form

    def _part_at(self, form: Form, digit: Digit, index: int) -> Form:
        for term in form:
            if digit in term.digits:
                if digit.count > MAX_PARTS:
                    self._forget(term, digit)
                else:
                    self._unstack(term.variable, term.digits.index(digit))
                return self._part_at(self.reduce(form), digit, index)
        part: Form = {}
        for term, c in form.items():
            values = dict(term.where)
            if values.pop(digit, index) == index:
                where = _where(values.items())
                part = plus(part, {term._replace(where=where): c})
        return part

    def _unstack(self, variable: Variable, place: int) -> None:
        """Writes a variable as one for each index along a dimension."""
        shape = variable.shape
        kept = [k for k in range(len(shape)) if k != place]
        digits = tuple(Digit(k, 1, shape[k]) for k in kept)
        form: Form = {}
        for index in range(shape[place]):
            new = self.variable(shape[k] for k in kept)
            where = ((Digit(place, 1, shape[place]), index),)
            form[Term(new, digits, where)] = Fraction(1)
        self._set(variable, form)


def _where(pairs: Iterable[tuple[Digit, int]]) -> tuple:
    return tuple(sorted(pairs, key=repr))


def _compose(form: Form, outer: Term) -> Form:
    """A form over the dimensions of a variable, at the digits of a term."""

    def move(digit: Digit) -> Digit:
        at = outer.digits[int(digit.axis)]
        return at._replace(stride=at.stride * digit.stride, count=digit.count)

    composed: Form = {}
    for term, c in move_digits(form, move).items():
        values = dict(outer.where)
        if all(values.setdefault(d, i) == i for d, i in term.where):
            where = _where(values.items())
            composed = plus(composed, {term._replace(where=where): c})
    return composed


def _completed(form: Form) -> Form:
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
            return _completed(plus(form, {rest: c}))
    return form


def _crosses(digit: Digit, stride: int) -> bool:
    """Whether a stride cuts a digit in two whole ones."""
    end = digit.stride * digit.count
    inside = digit.stride < stride < end
    return inside and stride % digit.stride == 0 and end % stride == 0


def _in(digit: Digit, outer: Digit) -> bool:
    end = outer.stride * outer.count
    return (
        outer.stride <= digit.stride
        and digit.stride * digit.count <= end
        and digit.over == outer.over
    )


def _halves(digit: Digit, stride: int) -> list[Digit]:
    inner = stride // digit.stride
    return [
        digit._replace(stride=stride, count=digit.count // inner),
        digit._replace(count=inner),
    ]


def _clash(digits: list[Digit]) -> tuple[Digit, int, Digit] | None:
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


def _split_conditions(form: Form, digit: Digit, stride: int) -> Form:
    outer, inner = _halves(digit, stride)
    split: Form = {}
    for term, c in form.items():
        values = dict(term.where)
        possible = True
        if digit in values:
            index = values.pop(digit)
            halves = {outer: index // inner.count, inner: index % inner.count}
            possible = all(
                values.setdefault(d, i) == i for d, i in halves.items()
            )
        where = _where(values.items())
        if possible:
            split = plus(split, {term._replace(where=where): c})
    return split


def size(digits: Iterable[Digit]) -> int:
    """How many values some digits take together."""
    return math.prod(digit.count for digit in digits)
