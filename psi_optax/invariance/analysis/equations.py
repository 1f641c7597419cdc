"""Equations between linear forms in the logarithms of scales.

Each operation that is to let its values scale asks for linear equations: a sum
needs terms that scale alike. What solves them all is the symmetry of the
program. They are solved as they come, by substitution. Where no exact solution
can be written as a form, variables are made uniform or zero until there is one:
that loses symmetries and never invents one.
"""

from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

from psi_optax.invariance.analysis.linear_forms import (
    MAX_PARTS,
    Axis,
    Digit,
    Form,
    Term,
    Variable,
    clash,
    completed,
    compose,
    conditions,
    crosses,
    digits_of,
    halves,
    lies_in,
    minus,
    move_digits,
    split_conditions,
    times,
    total,
)


class Solved(NamedTuple):
    """What a variable is, in terms of others, as an array of its shape."""

    form: Form  # kept in terms of variables that were free when last looked at
    meaning: Form  # as it was substituted
    reason: object


class Equations:
    """All that is known of the variables so far.

    A system is a stack of dictionaries of solved variables. Only the last one
    is written to, so that copies share all the others.
    """

    def __init__(self) -> None:
        self._layers: list[dict[Variable, Solved]] = [{}]
        self._count = 0
        self._reason: object = None

    def copy(self) -> "Equations":
        """Return a system that can be narrowed without narrowing this one."""
        self._freeze()
        other = Equations()
        other._layers = [*self._layers[:-1], {}]
        other._count = self._count
        return other

    def _freeze(self) -> None:
        """Close the last layer, and begin an empty one.

        A layer is merged into one below that is not larger: a system of n
        solved variables has at most log2(n) + 2 layers.
        """
        layers = self._layers
        if not layers[-1]:
            return
        while len(layers) > 1 and len(layers[-2]) <= len(layers[-1]):
            layers = [*layers[:-2], {**layers[-2], **layers[-1]}]
        self._layers = [*layers, {}]

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
        for layer in reversed(self._layers):
            if variable in layer:
                return layer[variable]
        return None

    def reasons(self, variable: Variable) -> list[object]:
        """Return why a variable was substituted, step by step."""
        reasons: list[object] = []
        while (solved := self.solved(variable)) is not None:
            reasons.append(solved.reason)
            if not solved.meaning:
                break
            variable = next(iter(solved.meaning)).variable
        return reasons

    def reduce(self, form: Form) -> Form:
        """The form in terms of free variables."""
        known = {term: self.solved(term.variable) for term in form}
        if not any(known.values()):
            return form
        reduced = []
        for term, c in form.items():
            one = {term: Fraction(1)}
            if (solved := known[term]) is not None:
                one = compose(self._reduced(term.variable, solved), term)
            reduced += times(one, c).items()
        return completed(total(reduced))

    def _reduced(self, variable: Variable, solved: Solved) -> Form:
        form = self.reduce(solved.form)
        if form is not solved.form:
            self._layers[-1][variable] = solved._replace(form=form)
        return form

    def require_zero(self, form: Form, reason: object) -> None:
        """Makes a form zero everywhere."""
        self._reason = reason
        self._vanish(form)

    def require_uniform(
        self, form: Form, digits: Iterable[Digit], reason
    ) -> None:
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
            if crosses(across[0], stride):
                form = self._split_digit(form, across[0], stride)
            else:
                self._drop(form, across[0])

    def restrict(self, form: Form, digit: Digit, index: int, reason) -> Form:
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
            d
            for d in digits_of(form)
            if d.axis == digit.axis and lies_in(d, digit)
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
        assert self.solved(variable) is None
        self._layers[-1][variable] = Solved(form, form, self._reason)

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
            found = clash([*digits, *more])
            if found is None:
                return form
            digit, stride, other = found
            if not crosses(digit, stride):
                self._drop(form, digit if digit in digits else other)
            elif digit in digits:
                form = self._split_digit(form, digit, stride)
            if digit in more and crosses(digit, stride):
                more.remove(digit)
                more += halves(digit, stride)

    def _split_digit(self, form: Form, digit: Digit, stride: int) -> Form:
        """The form with one digit, which stands in it, written as two."""
        holder = next((t for t in form if digit in t.digits), None)
        if holder is None:
            return split_conditions(form, digit, stride)
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
            d
            for d in digits_of(form)
            if d.axis == digit.axis and lies_in(d, digit)
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
        part = []
        for term, c in form.items():
            values = dict(term.where)
            if values.pop(digit, index) == index:
                where = conditions(values.items())
                part.append((term._replace(where=where), c))
        return total(part)

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
