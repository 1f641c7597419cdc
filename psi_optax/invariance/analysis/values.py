"""Abstract values: facts that the analysis knows of an array of the program."""

import dataclasses
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from psi_optax.invariance.analysis.index_digits import (
    Axis,
)
from psi_optax.invariance.analysis.linear_forms import (
    ZERO,
    Form,
)
from psi_optax.invariance.analysis.reasons import Reason

Shape = tuple[int, ...]

# The largest number of bfloat16. Bounds from here on count as infinite.
LARGEST = float(jnp.finfo(jnp.bfloat16).max)


class ArrayIdentity:
    """A mark of arrays that are equal up to their dtype; compared by `is`."""

    __slots__ = ()


class Offset(NamedTuple):
    """A term of a sum that scales differently from the rest of the sum.

    Where it is subtracted together with a mean it leaves no trace. Elsewhere
    its `difference` has to be zero.

    Attributes:
        difference: the form of the term minus that of the rest, over the array
            that the sum was.
        constant_axes: axes along which the term is constant, of the value that
            holds the offset. If that has a moment: of the array that the moment
            is of.
        depends_on: see `Value`, of the term.
        rest: the form of the rest.
        reason: why the difference has to be zero, where it has to be.
        guard: the norm where whose zeros alone the term replaces the value. It
            has no effect where the array of that norm is divided by the value.
            None: the term is added everywhere.
    """

    difference: Form
    constant_axes: frozenset[Axis]
    depends_on: int
    rest: Form
    reason: Reason
    guard: "Moment | None" = None


class Moment(NamedTuple):
    """A power of a mean of a power of another array.

    Attributes:
        of: the identity of that array.
        axes: its axes, or those of a mesh, that are averaged over.
        inner: the power under the mean.
        outer: the power of the mean.
        count: the number that the sum is still to be divided by.
        positions: for each axis of that array its present position, None if it
            is gone.
    """

    of: ArrayIdentity
    axes: frozenset[Axis]
    inner: int
    outer: int | Fraction
    count: int
    positions: tuple[int | None, ...]

    def moved(self, positions: Mapping[int, int]) -> "Moment | None":
        """Return the moment with moved axes; None if one of them is gone."""
        new = tuple(
            None if a is None else positions.get(a) for a in self.positions
        )
        if any(
            a is not None and b is None
            for a, b in zip(self.positions, new, strict=True)
        ):
            return None
        return self._replace(positions=new)

    def is_aligned(self, rank: int) -> bool:
        """Check that the axes that are not averaged over are in place."""
        kept = [a for a in range(len(self.positions)) if a not in self.axes]
        return rank == len(self.positions) and all(
            self.positions[a] == a for a in kept
        )


@dataclasses.dataclass(frozen=True)
class Value:
    """An array of the program: its scale, and other facts about it.

    Attributes:
        shape: the shape of the array.
        form: each element is multiplied by the exponential of this form.
            Integers and booleans do not scale: the operation that makes one of
            a float requires that.
        is_zero_or_inf: zero or infinite everywhere; such an array scales in
            every way.
        const: the number that all its elements are; None if unknown.
        runtime_number: the number that an argument is, NaN if it is unknown or
            not positive. It may change between calls, so that it counts as an
            epsilon only.
        constant_axes: axes along which it is constant, of the array and of a
            mesh.
        depends_on: a set of bits. Bit i of n parameters: its gradient reaches
            parameter i. Bit n + i: it depends on parameter i. See
            `Context.without_gradient`.
        offsets: terms that have to cancel, or else to scale like the rest.
        moment: the array that it is a mean, a square or a sum of squares of.
        nonzero: 1 if each element is zero only where a weight is; 2 if only
            where all weights of a norm are, which does not happen; else 0.
        zero_test: for a boolean, 1 if it is true where another array is zero,
            -1 where that is not zero; else 0.
        tested_norm: the array of that test if it is a sum of squares that may
            be zero.
        tested_for_inf: the identity of the array that is tested for infinities
            in place of zeros.
        parts: the arrays that it is a stack of, if these have offsets or
            moments.
        stack_axis: the axis along which they are stacked.
        identity: equal for arrays that are equal up to their dtype.
    """

    shape: Shape
    form: Form = dataclasses.field(default_factory=dict)
    is_zero_or_inf: bool = False
    const: float | None = None
    runtime_number: float | None = None
    constant_axes: frozenset[Axis] = frozenset()
    depends_on: int = 0
    offsets: tuple[Offset, ...] = ()
    moment: Moment | None = None
    nonzero: Literal[0, 1, 2] = 0
    zero_test: Literal[-1, 0, 1] = 0
    tested_norm: Moment | None = None
    tested_for_inf: ArrayIdentity | None = None
    parts: tuple["Value", ...] = ()
    stack_axis: int = 0
    identity: ArrayIdentity = dataclasses.field(
        default_factory=ArrayIdentity, compare=False
    )

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def number(self) -> float | None:
        """The number that all elements are, constant or at run time."""
        return self.runtime_number if self.const is None else self.const

    def replace(self, **changes: Any) -> "Value":
        """Return the same array with other facts known."""
        return dataclasses.replace(self, **changes)

    def derived(self, shape: Shape, form: Form = ZERO) -> "Value":
        """Return an array made of this one, with the same zeros and gradient.

        Args:
            shape: the shape of the new array.
            form: its form.
        """
        return Value(
            shape,
            form,
            is_zero_or_inf=self.is_zero_or_inf,
            depends_on=self.depends_on,
        )

    def without_moment(self) -> "Value":
        """Forget the moment; no mean can cancel its offsets any more."""
        if self.moment is None:
            return self
        offsets = tuple(
            o._replace(constant_axes=frozenset()) for o in self.offsets
        )
        return self.replace(moment=None, offsets=offsets)

    def as_new_array(self) -> "Value":
        """Return equal numbers as another array, that nothing is a mean of."""
        return self.without_moment().replace(identity=ArrayIdentity())


class Ref:
    """A mutable array, a `jax.Ref`; compared by `is`.

    Attributes:
        content: the array that it holds at this point of the program.
    """

    def __init__(self, content: Value) -> None:
        self.content = content


Operand = Value | Ref


def combined_dependencies(operands: Iterable[Operand]) -> int:
    """Return the bits of all parameters that operands depend on."""
    bits = 0
    for operand in operands:
        value = operand.content if isinstance(operand, Ref) else operand
        bits |= value.depends_on
        for offset in value.offsets:
            bits |= offset.depends_on
    return bits
