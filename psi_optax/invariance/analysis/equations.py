"""Equations between linear forms in the logarithms of scales.

Every operation whose result scales requires linear equations: a sum requires
terms that scale alike. The solutions of all equations are the symmetries of the
program. Equations are solved as they come, by substitution. Where no exact
solution can be written as a form, variables are made uniform or zero until one
exists: that loses symmetries and never invents one.
"""

import dataclasses
from collections.abc import Iterable
from fractions import Fraction

from psi_optax.invariance.analysis.index_digits import (
    Axis,
    Digit,
    first_overlap,
    halves,
    is_cut_by,
    is_part_of,
)
from psi_optax.invariance.analysis.linear_forms import (
    MAX_PARTS,
    ZERO,
    Form,
    Term,
    Variable,
    conditions,
    digits_of,
    minus,
    move_index_digits,
    split_conditions,
    times,
    total,
)
from psi_optax.invariance.analysis.reasons import Reason
from psi_optax.invariance.analysis.solutions import Solutions


class Equations(Solutions):
    """A system of solved equations.

    Each requirement has a reason, kept with the variables that it solves.
    """

    def require_zero(self, form: Form, reason: Reason | None) -> None:
        """Require a form to be zero everywhere."""
        _Solver(self, reason).require_zero(form)

    def require_uniform(
        self, form: Form, digits: Iterable[Digit], reason: Reason | None
    ) -> None:
        """Require a form not to change with some digits."""
        solver = _Solver(self, reason)
        for digit in digits:
            solver.require_uniform(form, digit)

    def cut(
        self, form: Form, axis: Axis, stride: int, reason: Reason | None
    ) -> Form:
        """Return a form without digits that reach across a stride."""
        return _Solver(self, reason).cut(form, axis, stride)

    def restrict(
        self, form: Form, digit: Digit, index: int, reason: Reason | None
    ) -> Form:
        """Return the form where a digit has a value."""
        return _Solver(self, reason).restrict(form, digit, index)


@dataclasses.dataclass(frozen=True)
class _Solver:
    """Solves variables of a system for one reason."""

    system: Equations
    reason: Reason | None

    # -- requirements -----------------------------------------------------

    def require_zero(self, form: Form) -> None:
        """Solve for one variable after another until a form is zero."""
        while form := self._refine(form):
            case = next((d for t in form for d, _ in t.where), None)
            if case is not None:
                for index in range(case.count):
                    self.require_zero(self.restrict(form, case, index))
                return
            pivot = _pivot(form)
            if pivot is None:
                self._disentangle(form)
                continue
            rest = {t: c for t, c in form.items() if t != pivot}
            beyond = [d for d in digits_of(rest) if d not in pivot.digits]
            if not beyond:
                self._solve(pivot, times(rest, -1 / form[pivot]))
                return
            self.require_uniform(rest, beyond[0])

    def require_uniform(self, form: Form, digit: Digit) -> None:
        """Solve for variables until a form does not change with a digit."""
        form = self._refine(form, [digit])
        for inner in _parts_of(form, digit):
            self._require_uniform(self._refine(form, [digit]), inner)

    def _require_uniform(self, form: Form, digit: Digit) -> None:
        form = {t: c for t, c in form.items() if digit in t.all_digits}
        if any(digit == d for term in form for d, _ in term.where):
            first = self.restrict(form, digit, 0)
            for index in range(1, digit.count):
                other = self.restrict(form, digit, index)
                self.require_zero(minus(other, first))
            return
        if not form:
            return
        pivot = _pivot(form)
        union = digits_of(form)
        if pivot is None or set(union) - set(pivot.digits) or pivot.where:
            # Term by term; the first may fix others.
            self._forget(next(iter(form)), digit)
            self._require_uniform(self._refine(form, [digit]), digit)
            return
        mean = {self.system.term(d for d in union if d != digit): Fraction(1)}
        rest = {t: c for t, c in form.items() if t != pivot}
        self._solve(pivot, times(minus(mean, rest), 1 / form[pivot]))

    def _disentangle(self, form: Form) -> None:
        """Make a variable uniform in a dimension with different digits."""
        by_variable: dict[Variable, list[Term]] = {}
        for term in form:
            by_variable.setdefault(term.variable, []).append(term)
        for variable, terms in by_variable.items():
            for dimension in range(len(variable.shape)):
                if _is_entangled(terms, dimension):
                    self._forget(terms[0], terms[0].digits[dimension])
                    return
        # Terms are unique: equal digits with two coefficients cannot be.
        raise AssertionError(f"no equation is left in {form}")

    # -- forms with finer digits ------------------------------------------

    def cut(self, form: Form, axis: Axis, stride: int) -> Form:
        """Return a form without digits that reach across a stride."""
        while True:
            form = self.system.reduce(form)
            across = [
                d
                for d in digits_of(form)
                if d.axis == axis and d.stride < stride < d.end
            ]
            if not across:
                return form
            if is_cut_by(across[0], stride):
                form = self._split_digit(form, across[0], stride)
            else:
                self._drop(form, across[0])

    def restrict(self, form: Form, digit: Digit, index: int) -> Form:
        """Return the form where a digit has a value."""
        form = self._refine(form, [digit])
        for inner in _parts_of(form, digit):
            stride = inner.stride // digit.stride
            form = self._restrict(form, inner, index // stride % inner.count)
        return form

    def _restrict(self, form: Form, digit: Digit, index: int) -> Form:
        for term in form:
            if digit in term.digits:
                if digit.count > MAX_PARTS:
                    self._forget(term, digit)
                else:
                    self._unstack(term.variable, term.digits.index(digit))
                return self._restrict(self.system.reduce(form), digit, index)
        part = []
        for term, c in form.items():
            values = dict(term.where)
            if values.pop(digit, index) == index:
                where = conditions(values.items())
                part.append((term._replace(where=where), c))
        return total(part)

    def _refine(self, form: Form, more: Iterable[Digit] = ()) -> Form:
        """Split digits until any two of the form are equal or disjoint."""
        more = list(more)
        while True:
            form = self.system.reduce(form)
            digits = digits_of(form)
            found = first_overlap([*digits, *more])
            if found is None:
                return form
            digit, stride, other = found
            if not is_cut_by(digit, stride):
                self._drop(form, digit if digit in digits else other)
            elif digit in digits:
                form = self._split_digit(form, digit, stride)
            if digit in more and is_cut_by(digit, stride):
                more.remove(digit)
                more += halves(digit, stride)

    def _split_digit(self, form: Form, digit: Digit, stride: int) -> Form:
        """Return the form with one of its digits written as two."""
        holder = _holder(form, digit)
        if holder is None:
            return split_conditions(form, digit, stride)
        dimension = holder.digits.index(digit)
        self._split(holder.variable, dimension, stride // digit.stride)
        return self.system.reduce(form)

    # -- substitutions ----------------------------------------------------

    def _solve(self, pivot: Term, form: Form) -> None:
        """Substitute a form, whose digits a term has, for its variable."""
        dimension = {d: k for k, d in enumerate(pivot.digits)}

        def move(digit: Digit) -> Digit:
            return Digit(dimension[digit], 1, digit.count)

        self._set(pivot.variable, move_index_digits(form, move))

    def _drop(self, form: Form, digit: Digit) -> None:
        """Make a form independent of a digit that fits no other."""
        holder = _holder(form, digit)
        if holder is not None:
            self._forget(holder, digit)
            return
        # A condition: no other variable can express it.
        for variable in {term.variable for term in form}:
            self._set(variable, ZERO)

    def _forget(self, term: Term, digit: Digit) -> None:
        """Make one variable uniform along one of its dimensions."""
        variable, dimension = term.variable, term.digits.index(digit)
        digits = _other_dimensions(variable, dimension)
        new = self.system.variable(d.count for d in digits)
        self._set(variable, {Term(new, digits): Fraction(1)})

    def _split(self, variable: Variable, dimension: int, inner: int) -> None:
        """Write one dimension of a variable as two, the second of a length."""
        shape = variable.shape
        outer = shape[dimension] // inner
        new = self.system.variable(
            (*shape[:dimension], outer, inner, *shape[dimension + 1 :])
        )
        digits = [Digit(k, 1, n) for k, n in enumerate(shape)]
        digits[dimension : dimension + 1] = [
            Digit(dimension, inner, outer),
            Digit(dimension, 1, inner),
        ]
        self._set(variable, {Term(new, tuple(digits)): Fraction(1)})

    def _unstack(self, variable: Variable, dimension: int) -> None:
        """Write a variable as one for each index along a dimension."""
        digits = _other_dimensions(variable, dimension)
        count = variable.shape[dimension]
        form: Form = {}
        for index in range(count):
            new = self.system.variable(d.count for d in digits)
            where = ((Digit(dimension, 1, count), index),)
            form[Term(new, digits, where)] = Fraction(1)
        self._set(variable, form)

    def _set(self, variable: Variable, form: Form) -> None:
        self.system.solve(variable, form, self.reason)


def _pivot(form: Form) -> Term | None:
    """Return the term to solve for: of most digits, with a variable alone."""
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


def _parts_of(form: Form, digit: Digit) -> list[Digit]:
    """Return the digits of a form that are parts of a digit."""
    return [d for d in digits_of(form) if is_part_of(d, digit)]


def _is_entangled(terms: list[Term], dimension: int) -> bool:
    """Check that terms of one variable differ in the digit of a dimension.

    Or that a term has that digit in another dimension as well.
    """
    if len({term.digits[dimension] for term in terms}) > 1:
        return True
    return any(t.digits.count(t.digits[dimension]) > 1 for t in terms)


def _holder(form: Form, digit: Digit) -> Term | None:
    """Return a term whose variable has a digit; None if conditions have it."""
    return next((term for term in form if digit in term.digits), None)


def _other_dimensions(variable: Variable, dimension: int) -> tuple[Digit, ...]:
    """Return the dimensions of a variable without one, as digits."""
    shape = variable.shape
    return tuple(Digit(k, 1, n) for k, n in enumerate(shape) if k != dimension)
