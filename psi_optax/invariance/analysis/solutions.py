"""Solved variables: each is a linear form in other variables."""

from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple, Self

from psi_optax.invariance.analysis.index_digits import (
    Digit,
)
from psi_optax.invariance.analysis.linear_forms import (
    Form,
    Term,
    Variable,
    compose,
    merge_cases,
    times,
    total,
)
from psi_optax.invariance.analysis.reasons import Reason


class Solved(NamedTuple):
    """A solved variable, as an array of its shape.

    Attributes:
        form: in terms of variables that were free when it was last reduced.
        meaning: as it was substituted.
        reason: why it was substituted.
    """

    form: Form
    meaning: Form
    reason: Reason | None


class Solutions:
    """All solved variables of a system of equations.

    A system is a stack of dictionaries. Only the last one is written to, so
    that copies share all the others.
    """

    def __init__(self) -> None:
        self._layers: list[dict[Variable, Solved]] = [{}]
        self._count = 0

    def copy(self) -> Self:
        """Return a system whose changes do not change this one."""
        self._freeze()
        other = type(self)()
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
        """Return a new free variable."""
        self._count += 1
        return Variable(self._count, tuple(shape))

    def term(self, digits: Iterable[Digit]) -> Term:
        """Return a new free variable at some digits."""
        digits = tuple(digits)
        return Term(self.variable(d.count for d in digits), digits)

    def unknown(self, shape: Iterable[int]) -> Form:
        """Return a form with a new unknown for every element of an array."""
        digits = [Digit(a, 1, n) for a, n in enumerate(shape) if n != 1]
        return {self.term(digits): Fraction(1)}

    def solve(
        self, variable: Variable, form: Form, reason: Reason | None
    ) -> None:
        """Substitute a form of the same shape for a free variable."""
        assert self.solved(variable) is None
        self._layers[-1][variable] = Solved(form, form, reason)

    def solved(self, variable: Variable) -> Solved | None:
        """Return the solution of a variable; None if it is free."""
        for layer in reversed(self._layers):
            if variable in layer:
                return layer[variable]
        return None

    def reasons(self, variable: Variable) -> list[Reason | None]:
        """Return why a variable was substituted, step by step."""
        reasons: list[Reason | None] = []
        while (solved := self.solved(variable)) is not None:
            reasons.append(solved.reason)
            if not solved.meaning:
                break
            variable = next(iter(solved.meaning)).variable
        return reasons

    def reduce(self, form: Form) -> Form:
        """Return a form in terms of free variables."""
        known = {term: self.solved(term.variable) for term in form}
        if not any(known.values()):
            return form
        reduced = []
        for term, c in form.items():
            solved = known[term]
            if solved is None:
                reduced.append((term, c))
            else:
                one = compose(self._reduced(term.variable, solved), term)
                reduced += times(one, c).items()
        return merge_cases(total(reduced))

    def _reduced(self, variable: Variable, solved: Solved) -> Form:
        form = self.reduce(solved.form)
        if form is not solved.form:
            self._layers[-1][variable] = solved._replace(form=form)
        return form
