"""What the analysis knows of one value of the program."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import jax.numpy as jnp

from psi_optax.invariance.analysis.equations import Equations
from psi_optax.invariance.analysis.linear_forms import (
    Axis,
    Form,
    Variable,
    digits_along,
    minus,
)

_IDENTITIES = itertools.count()
# The largest number of bfloat16, below those of wider dtypes: as good as
# infinite.
LARGEST = float(jnp.finfo(jnp.bfloat16).max)


class Program:
    """A jaxpr, in which places are looked up many times."""

    def __init__(self, jaxpr: Any) -> None:
        self.jaxpr = jaxpr

    @functools.cached_property
    def defined(self) -> dict[Any, tuple[int, Any]]:
        """The place and the equation of each variable that one makes."""
        places = enumerate(self.jaxpr.eqns)
        return {v: (place, e) for place, e in places for v in e.outvars}


class Origin(NamedTuple):
    """An equation, with the program that it is in."""

    program: Program
    equation: Any


class Reason(NamedTuple):
    """Why an equation had to hold, in words, and where in the program.

    Of a mixture, `flat` says whether the difference from a fixed array is taken
    that is constant along an axis; None if no such difference is.
    """

    kind: str  # "mixture", "nonlinear", "output", "unknown" or "shape"
    text: str
    site: str
    origin: Origin | None = None
    constant_axes: bool | None = None


class Waiver(NamedTuple):
    """A small constant that was added to what scales, and passed over."""

    form: Form
    constant: float
    site: str


class Bound(NamedTuple):
    """A bound on what scales, passed over because it is so wide."""

    form: Form
    number: float
    site: str


class Stop(NamedTuple):
    """A value that scales, whose derivative is not that of its function."""

    form: Form
    site: str
    by: str  # what gives it another derivative


class Offset(NamedTuple):
    """A term that was added and scales otherwise than the value it is in.

    Where it is subtracted with the mean it leaves no trace; where it is not,
    `difference` has to vanish. In a value with a moment, `flat` speaks of the
    axes of what the moment is of. With a guard, the value scales otherwise only
    where a norm is zero, which does not count where what that is the norm of is
    divided by the value.
    """

    difference: Form  # as an array of the shape that the sum had
    constant_axes: frozenset[
        Axis
    ]  # axes of the value along which it is constant
    depends_on: int
    rest: Form  # of what it was added to
    reason: Reason  # why the difference has to vanish, where it has to
    guard: "Moment | None" = None


class Moment(NamedTuple):
    """That a value is a power of a mean of a power of another."""

    of: int  # the identity of the other
    axes: frozenset[Axis]  # of the other, or of the mesh: averaged over
    inner: int  # the power under the mean
    outer: int | Fraction  # the power of the mean
    count: int  # what the sum is still to be divided by
    place: tuple[int | None, ...]  # where the axes of the other are now

    def moved(self, place: Mapping[int, int]) -> "Moment | None":
        """Return the moment where the axes are now; None if one has gone."""
        where = tuple(None if a is None else place.get(a) for a in self.place)
        gone = any(a is not None and place.get(a) is None for a in self.place)
        return None if gone else self._replace(place=where)

    def is_aligned(self, rank: int) -> bool:
        """Return whether the axes that were not averaged over are in place."""
        kept = [a for a in range(len(self.place)) if a not in self.axes]
        return rank == len(self.place) and all(self.place[a] == a for a in kept)


@dataclasses.dataclass(frozen=True)
class Value:
    """An array: how it scales, and what else is known of it.

    Attributes:
        shape: of the array.
        form: each element is multiplied by the exponential of this. Integers
            and booleans do not scale: what makes one of a float sees to it.
        is_zero_or_inf: zero or infinite everywhere, which scales in every way.
        const: the number that it is everywhere, if that is known.
        runtime_number: the number that an argument is, NaN if that is not
            known or not positive. It may change, and is looked at as an epsilon
            alone.
        constant_axes: axes along which it is constant, of the array and of a
            mesh.
        depends_on: a bit for each parameter that its gradient goes to, and
            above these one for each that it depends on: see `Context.as_values`.
        offsets: terms that have still to vanish or to be made to scale.
        moment: of what it is a mean, a square or a sum of squares.
        nonzero: 1 where each element is zero only if a weight is; 2 where only
            if all weights of a norm are, which they hardly are.
        zero_test: 1 if it says where another is zero, -1 where it is not.
        tested_norm: the other, if it is a sum of squares that may well be zero.
        inf_test_of: the identity of the array of which it says where it is
            infinite, if it says that; `guards` speaks of that then.
        parts: the arrays that it is a stack of, if they have offsets or
            moments.
        stack_axis: the axis along which they are stacked.
        identity: equal for arrays that are equal up to their dtype.
    """

    shape: tuple[int, ...]
    form: Form = dataclasses.field(default_factory=dict)
    is_zero_or_inf: bool = False
    const: float | None = None
    runtime_number: float | None = None
    constant_axes: frozenset[Axis] = frozenset()
    depends_on: int = 0
    offsets: tuple[Offset, ...] = ()
    moment: Moment | None = None
    nonzero: int = 0
    zero_test: int = 0
    tested_norm: Moment | None = None
    inf_test_of: int | None = None
    parts: tuple["Value", ...] = ()
    stack_axis: int = 0
    identity: int = dataclasses.field(
        default_factory=lambda: next(_IDENTITIES), compare=False
    )

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def number(self) -> float | None:
        """The number that it is everywhere, known or given."""
        return self.runtime_number if self.const is None else self.const

    def without_moment(self) -> "Value":
        """Without the moment, and offsets that no mean can cancel any more."""
        if self.moment is None:
            return self
        offsets = tuple(
            o._replace(constant_axes=frozenset()) for o in self.offsets
        )
        return self.replace(moment=None, offsets=offsets)

    def as_new_array(self) -> "Value":
        """The same numbers as another array, of which nothing is a mean."""
        return self.without_moment().replace(identity=next(_IDENTITIES))

    def replace(self, **changes) -> "Value":
        """The same array with something else known."""
        return dataclasses.replace(self, **changes)


class Cell:
    """A mutable array, a `jax.Ref`: two with one identity are one array.

    Attributes:
        content: the array that it holds at this point of the program.
    """

    def __init__(self, content: Value) -> None:
        self.content = content


Operand = Value | Cell


class Context:
    """The equations, and the place in the program that asks for them."""

    def __init__(
        self, equations: Equations, max_epsilon: float, parameters: int
    ) -> None:
        self.equations = equations
        self.max_epsilon = max_epsilon
        self.parameters = parameters
        self.waivers: list[Waiver] = []
        self.bounds: list[Bound] = []
        self.stops: list[Stop] = []
        self.carried: set[Variable] = set()
        self.cancelled = 0
        self.mesh: dict[str, int] = {}  # of the `shard_map` that is run
        self.primitive = ""
        self.site = ""
        self.origin: Origin | None = None

    def without_gradient(self, reach: int) -> int:
        """Return the reach of a function of an array that has no gradient."""
        return reach >> self.parameters << self.parameters

    def has_gradient(self, reach: int) -> bool:
        """Return whether a gradient goes to a parameter."""
        return reach != self.without_gradient(reach)

    def reason(self, kind: str, text: str) -> Reason:
        """A reason, at the present place."""
        return Reason(kind, text, self.site, self.origin)

    def require_zero(self, form: Form, kind: str, text: str) -> None:
        """This form has to be zero."""
        self.equations.require_zero(form, self.reason(kind, text))

    def require_invariant(self, value: Value, kind: str, text: str) -> Value:
        """The value, which must not scale."""
        value = self.resolve_offsets(value)
        if not value.is_zero_or_inf:
            self.require_zero(value.form, kind, text)
        return value.replace(form={})

    def unify(self, a: Value, b: Value) -> Form:
        """The form of two arrays of one shape that have to scale alike."""
        if a.is_zero_or_inf or b.is_zero_or_inf:
            return b.form if a.is_zero_or_inf else a.form
        self.equations.require_zero(
            minus(a.form, b.form), self.mixture_reason(a, b)
        )
        return self.equations.reduce(a.form)

    def mixture_reason(self, a: Value, b: Value) -> Reason:
        """Return why two operands must not scale differently."""
        fixed = [v for v in (a, b) if not self.equations.reduce(v.form)]
        if not fixed:
            text = f"`{self.primitive}` of what scales in two ways"
            return self.reason("mixture", text)
        text = f"`{self.primitive}` of what scales and what does not"
        if fixed[0].runtime_number is not None and self.primitive != "sub":
            text = (
                f"`{self.primitive}` of what scales and an argument: if it is"
                " an epsilon, give a positive number up to max_epsilon"
            )
        reason = self.reason("mixture", text)
        # A constant, or something that is made of weights, is no data.
        known = fixed[0].const is not None or fixed[0].depends_on
        if self.primitive != "sub" or known:
            return reason
        return reason._replace(constant_axes=bool(fixed[0].constant_axes))

    def require_uniform(
        self, form: Form, axis: Axis, text: str | None = None
    ) -> Form:
        """The form, which must not change along an axis."""
        form = self.equations.reduce(form)
        reason = self.reason(
            "shape", text or f"`{self.primitive}` along a scaled axis"
        )
        while digits := digits_along(form, axis):
            self.equations.require_uniform(form, digits, reason)
            form = self.equations.reduce(form)
        return form

    def resolve_offsets(self, value: Value) -> Value:
        """The value with its offsets made to scale with it."""
        for part in value.parts:
            self.resolve_offsets(part)
        for offset in value.offsets:
            self._settle_offset(offset)
            value = value.replace(
                depends_on=value.depends_on | offset.depends_on
            )
        return value.replace(
            offsets=(), parts=(), form=self.equations.reduce(value.form)
        )

    def merge_parts(self, value: Value) -> Value:
        """Return the value as one array, not as a stack of its parts."""
        return self.resolve_offsets(value) if value.parts else value

    def _settle_offset(self, offset: Offset) -> None:
        """Make an offset scale as what it is added to.

        Where that has been fixed meanwhile, it is for the same reason.
        """
        reason = None
        if not self.equations.reduce(offset.rest):
            reason = self.why_zero(offset.rest)
        self.equations.require_zero(offset.difference, reason or offset.reason)

    def why_zero(self, form: Form) -> Reason | None:
        """Return why a form vanished; None if it is not known."""
        for term in form:
            told = self.equations.reasons(term.variable)
            for reason in reversed(told):
                if isinstance(reason, Reason):
                    return reason
        return None

    def subtract_mean(self, value: Value, axes: frozenset[Axis]) -> Value:
        """Return a value whose mean along some axes has been subtracted."""
        kept = []
        for offset in value.offsets:
            if axes <= offset.constant_axes:
                self.cancelled |= offset.depends_on
            else:
                kept.append(offset)
        return self.resolve_offsets(value.replace(offsets=tuple(kept)))

    def merge_offsets(self, offsets: tuple[Offset, ...]) -> tuple[Offset, ...]:
        """Return offsets, those that scale with their value already as one.

        A stream that many terms are added to would else have all of them.
        """
        open_: list[Offset] = []
        alike: dict[frozenset[Axis], Offset] = {}
        for offset in offsets:
            if offset.guard or self.equations.reduce(offset.difference):
                open_.append(offset)
                continue
            before = alike.get(offset.constant_axes)
            reach = offset.depends_on | (before.depends_on if before else 0)
            alike[offset.constant_axes] = offset._replace(
                difference={}, depends_on=reach
            )
        return (*open_, *alike.values())

    def resolve_guards(self, value: Value) -> Value:
        """Return the value without guards, which a sum would lose track of."""
        guarded = [o for o in value.offsets if o.guard is not None]
        for offset in guarded:
            self._settle_offset(offset)
        kept = tuple(o for o in value.offsets if o.guard is None)
        reach = value.depends_on
        for offset in guarded:
            reach |= offset.depends_on
        return (
            value.replace(offsets=kept, depends_on=reach) if guarded else value
        )

    def ignore_epsilon(self, value: Value, constant: float | None) -> bool:
        """Whether a constant is small enough to be passed over in a sum."""
        # 1e-3 in single precision is a little more than 1e-3.
        largest = self.max_epsilon * (1 + 1e-6)
        if constant is None or not 0 < abs(constant) <= largest:
            return False
        form = self.equations.reduce(value.form)
        if self._is_carried(form):
            return False
        if form:
            self.waivers.append(Waiver(form, abs(constant), self.site))
        return True

    def ignore_bound(self, value: Value, bound: float) -> bool:
        """Whether a bound is so wide that it is taken not to act."""
        # Symmetric to the constants that are small enough.
        if abs(bound) * self.max_epsilon < 1 - 1e-6:
            return False
        form = self.equations.reduce(value.form)
        if self._is_carried(form):
            return False
        if form and abs(bound) < LARGEST:
            self.bounds.append(Bound(form, abs(bound), self.site))
        return True

    def _is_carried(self, form: Form) -> bool:
        """Whether it is what a loop carries: perhaps nothing but constants."""
        return any(term.variable in self.carried for term in form)
