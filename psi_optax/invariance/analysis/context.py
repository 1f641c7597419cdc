"""The state of an analysis, and the requirements that its rules make."""

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal

from psi_optax.invariance.analysis.equations import Equations
from psi_optax.invariance.analysis.index_digits import (
    Axis,
    Digit,
)
from psi_optax.invariance.analysis.linear_forms import (
    ZERO,
    Form,
    digits_along,
    minus,
)
from psi_optax.invariance.analysis.notes import (
    CustomGradient,
    IgnoredNumber,
    Notes,
)
from psi_optax.invariance.analysis.reasons import (
    Program,
    Reason,
    ReasonKind,
    ReasonOrigin,
)
from psi_optax.invariance.analysis.values import (
    LARGEST,
    Offset,
    Value,
)
from psi_optax.invariance.sites import site_of


@dataclasses.dataclass(frozen=True)
class Context:
    """An analysis, seen from one equation of the program.

    Attributes:
        equations: the equations between scales.
        max_epsilon: the largest constant that may be ignored in a sum.
        parameters: the number of parameters.
        notes: facts collected so far.
        mesh: the sizes of the mesh axes of the `shard_map`s around.
        primitive: the name of the primitive.
        site: the place in the user's source.
        origin: the equation, with its program.
    """

    equations: Equations
    max_epsilon: float
    parameters: int
    notes: Notes = dataclasses.field(default_factory=Notes)
    mesh: dict[str, int] = dataclasses.field(default_factory=dict)
    primitive: str = ""
    site: str = ""
    origin: ReasonOrigin | None = None

    def at(self, program: Program, equation: Any) -> "Context":
        """Return the context of an equation."""
        return dataclasses.replace(
            self,
            primitive=equation.primitive.name,
            site=site_of(equation) or self.site,
            origin=ReasonOrigin(program, equation),
        )

    def at_result(self, site: str) -> "Context":
        """Return the context of a result of the program."""
        site = site or self.site
        return dataclasses.replace(self, primitive="result", site=site)

    # -- gradients --------------------------------------------------------

    def without_gradient(self, depends_on: int) -> int:
        """Return the bits of an array through which no gradient passes."""
        return depends_on >> self.parameters << self.parameters

    def has_gradient(self, depends_on: int) -> bool:
        """Check that a gradient reaches some parameter."""
        return depends_on != self.without_gradient(depends_on)

    def note_custom_gradient(self, form: Form, by: str) -> None:
        """Note that the gradient of a value is not that of its function."""
        self.notes.custom_gradients.append(CustomGradient(form, by, self.site))

    # -- reasons ----------------------------------------------------------

    def reason(self, kind: ReasonKind, text: str) -> Reason:
        """Return a reason at this equation."""
        return Reason(kind, text, self.site, self.origin)

    def mixture_reason(self, a: Value, b: Value) -> Reason:
        """Return the reason why two operands must not scale differently."""
        fixed = [v for v in (a, b) if not self.equations.reduce(v.form)]
        if not fixed:
            text = f"`{self.primitive}` of values that scale differently"
            return self.reason("mixture", text)
        [fixed, *_] = fixed
        is_subtraction = self.primitive == "sub"
        text = f"`{self.primitive}` of scaled and unscaled values"
        if fixed.runtime_number is not None and not is_subtraction:
            text = (
                f"`{self.primitive}` of scaled values and an argument: if it is"
                " an epsilon, pass a positive number up to max_epsilon"
            )
        reason = self.reason("mixture", text)
        # A constant, or a function of weights, is no data.
        is_data = fixed.const is None and not fixed.depends_on
        if not (is_subtraction and is_data):
            return reason
        return reason._replace(subtracts_constant=bool(fixed.constant_axes))

    def why_zero(self, form: Form) -> Reason | None:
        """Return the reason why a form became zero; None if unknown."""
        for term in form:
            for reason in reversed(self.equations.reasons(term.variable)):
                if reason is not None:
                    return reason
        return None

    # -- requirements -----------------------------------------------------

    def require_zero(self, form: Form, kind: ReasonKind, text: str) -> None:
        """Require a form to be zero."""
        self.equations.require_zero(form, self.reason(kind, text))

    def require_invariant(
        self, value: Value, kind: ReasonKind, text: str
    ) -> Value:
        """Require a value not to scale, and return it."""
        value = self.resolve_offsets(value)
        if not value.is_zero_or_inf:
            self.require_zero(value.form, kind, text)
        return value.replace(form=ZERO)

    def require_uniform(
        self, form: Form, axis: Axis, text: str | None = None
    ) -> Form:
        """Require a form not to change along an axis, and return it."""
        form = self.equations.reduce(form)
        text = text or f"`{self.primitive}` along a scaled axis"
        while digits := digits_along(form, axis):
            form = self.require_uniform_in(form, digits, text)
        return form

    def require_uniform_in(
        self, form: Form, digits: Iterable[Digit], text: str
    ) -> Form:
        """Require a form not to change with some digits, and return it."""
        reason = self.reason("shape", text)
        self.equations.require_uniform(form, digits, reason)
        return self.equations.reduce(form)

    def unify(self, a: Value, b: Value) -> Form:
        """Require two arrays of one shape to scale alike; return their form."""
        if a.is_zero_or_inf or b.is_zero_or_inf:
            return b.form if a.is_zero_or_inf else a.form
        reason = self.mixture_reason(a, b)
        self.equations.require_zero(minus(a.form, b.form), reason)
        return self.equations.reduce(a.form)

    def unify_all(self, values: Iterable[Value]) -> Form:
        """Require arrays of one shape to scale alike; return their form."""
        values = list(values)
        scaled = [x for x in values if not x.is_zero_or_inf]
        first, *others = scaled or values
        for other in others:
            first = first.replace(form=self.unify(first, other))
        return first.form

    # -- offsets ----------------------------------------------------------

    def resolve_offsets(self, value: Value) -> Value:
        """Require the offsets of a value to scale with it, and drop them."""
        for part in value.parts:
            self.resolve_offsets(part)
        depends_on = value.depends_on
        for offset in value.offsets:
            self._resolve_offset(offset)
            depends_on |= offset.depends_on
        form = self.equations.reduce(value.form)
        return value.replace(
            offsets=(), parts=(), form=form, depends_on=depends_on
        )

    def _resolve_offset(self, offset: Offset) -> None:
        """Require an offset to scale as the value that it is added to.

        Where that became fixed meanwhile, the reason is the same.
        """
        reason = None
        if not self.equations.reduce(offset.rest):
            reason = self.why_zero(offset.rest)
        self.equations.require_zero(offset.difference, reason or offset.reason)

    def merge_parts(self, value: Value) -> Value:
        """Return a stack as one array, without its parts."""
        return self.resolve_offsets(value) if value.parts else value

    def subtract_mean(self, value: Value, axes: frozenset[Axis]) -> Value:
        """Drop the offsets that cancel in a value minus its mean over axes."""
        kept = []
        for offset in value.offsets:
            if axes <= offset.constant_axes:
                self.notes.cancelled |= offset.depends_on
            else:
                kept.append(offset)
        return self.resolve_offsets(value.replace(offsets=tuple(kept)))

    def merge_offsets(self, offsets: Iterable[Offset]) -> tuple[Offset, ...]:
        """Merge the offsets that scale with their value already.

        A stream that many terms are added to would else keep all of them.
        """
        unresolved: list[Offset] = []
        merged: dict[frozenset[Axis], Offset] = {}
        for offset in offsets:
            if offset.guard or self.equations.reduce(offset.difference):
                unresolved.append(offset)
                continue
            before = merged.get(offset.constant_axes)
            bits = offset.depends_on | (before.depends_on if before else 0)
            merged[offset.constant_axes] = offset._replace(
                difference=ZERO, depends_on=bits
            )
        return (*unresolved, *merged.values())

    def resolve_guards(self, value: Value) -> Value:
        """Resolve the offsets with guards, which a sum would lose track of."""
        guarded = [o for o in value.offsets if o.guard is not None]
        if not guarded:
            return value
        depends_on = value.depends_on
        for offset in guarded:
            self._resolve_offset(offset)
            depends_on |= offset.depends_on
        kept = tuple(o for o in value.offsets if o.guard is None)
        return value.replace(offsets=kept, depends_on=depends_on)

    # -- numbers beside scaled values -------------------------------------

    def ignore_epsilon(self, value: Value, constant: float | None) -> bool:
        """Ignore a constant beside a value if it is small enough.

        Returns:
            Whether the constant is ignored.
        """
        # 1e-3 in single precision is slightly larger than 1e-3.
        largest = self.max_epsilon * (1 + 1e-6)
        if constant is None or not 0 < abs(constant) <= largest:
            return False
        return self._ignore("epsilon", value, abs(constant))

    def ignore_bound(self, value: Value, bound: float) -> bool:
        """Ignore a bound on a value if it is wide enough.

        Returns:
            Whether the bound is ignored.
        """
        # The threshold is the inverse of that of epsilons.
        if abs(bound) * self.max_epsilon < 1 - 1e-6:
            return False
        return self._ignore("bound", value, abs(bound))

    def _ignore(
        self, kind: Literal["epsilon", "bound"], value: Value, size: float
    ) -> bool:
        form = self.equations.reduce(value.form)
        # A loop may carry nothing but constants.
        if any(term.variable in self.notes.loop_unknowns for term in form):
            return False
        if form and size < LARGEST:
            self.notes.ignored.append(
                IgnoredNumber(kind, form, size, self.site)
            )
        return True
