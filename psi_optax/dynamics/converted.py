"""A converted learning rate: what it means, and whether it fits all groups."""

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

import optax

from psi_optax._schedules import LARGEST_STEP
from psi_optax._text import summarize
from psi_optax.groups import Tree

FEW = 0.05  # Of the grouped weights.
FACTOR = 2.0
"""Largest factor between one learning rate and each group's own."""


class RotationRange(NamedTuple):
    """Rotations of groups per step, in radians.

    Attributes:
        mean: geometric mean over groups, in which each weight counts once.
        minimum: over groups.
        maximum: over groups.
    """

    mean: float
    minimum: float
    maximum: float


@dataclasses.dataclass(frozen=True, eq=False)
class ConvertedLearningRate:
    """Result of `convert_learning_rate`.

    `str` of it names the remedy if one learning rate does not fit all groups.

    Attributes:
        learning_rate: a number, or a schedule if the given one is a schedule.
        largest: the number, or the schedule's largest.
        rotation: of groups per step at this learning rate, or at the schedule's
            largest; None if it is unknown.
        limit: the learning rate at which a step of Adam or Lion rotates the
            largest groups by up to 0.3 radians; infinite if unknown.
        per_group: each group's own learning rate, at the schedule's largest: a
            tree like params with an array of the group shape, None at ordinary
            leaves. Groups that never rotate have the common one.
        spread: the largest factor between the learning rate and a group's own.
        apart: parameters with groups whose own rate is more than a factor of 2
            away; of tied parameters the first.
        share: of the grouped weights, those in these groups.
        excluded: number of groups that never rotate: of norm zero, of one
            weight, or without gradients.
        to: the target, "psi" or "angle".
        remedy: an advice, where one learning rate does not fit all groups.

    Raises:
        AttributeError: an attribute is set.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> from psi_optax.dynamics import convert_learning_rate
        >>> params = jnp.array([[3.0, 4.0], [4.0, 3.0]])
        >>> found = convert_learning_rate(0.5, params, ScaleGroup(0))
        >>> found.fits_all, found.per_group.round(3)
        (True, Array([0.02, 0.02], dtype=float32))
    """

    learning_rate: float | optax.Schedule
    largest: float
    rotation: RotationRange | None
    limit: float
    per_group: Tree
    spread: float
    apart: tuple[str, ...]
    share: float
    excluded: int
    to: str
    remedy: str

    @property
    def fits_all(self) -> bool:
        """Return whether each group's own rate is within a factor of 2."""
        return self.spread <= FACTOR

    def __str__(self) -> str:
        rate = f"{self.largest:.3g}"
        if callable(self.learning_rate):
            rate = f"a schedule, at most {rate}"
        lines = [f"learning rate ({self.to}): {rate}", *self._rotation()]
        if self.excluded:
            count = f"{self.excluded} group{'s' * (self.excluded > 1)}"
            lines.append(f"excluded: {count} that cannot rotate")
        return "\n".join([*lines, self._fit()])

    def _rotation(self) -> Iterator[str]:
        """Yield the rotation, and an advice where it is large."""
        if self.rotation is None:
            yield "rotation: not known; pass gradient_norm or measured_rotation"
            return
        mean, low, high = (f"{x:.3g}" for x in self.rotation)
        yield f"rotation: {mean} radians a step, {low} to {high} over groups"
        if self.largest > self.limit or self.rotation.maximum > LARGEST_STEP:
            at_most = f", or use at most {self.limit:.2g}"
            yield (
                f"above {LARGEST_STEP} radians norms grow at once, unless they"
                " decay: pass the params of that run after a quarter of it, to"
                " which this learning rate belongs"
                f"{at_most * math.isfinite(self.limit)}"
            )

    def _fit(self) -> str:
        """Return whether one rate fits all groups, and the remedy if not."""
        if self.fits_all:
            return (
                "one rate fits all groups: their own are within a factor of"
                f" {self.spread:.3g} of it"
            )
        apart = summarize([repr(path) for path in self.apart], 4)
        text = (
            f"not all groups fit: the own rates of {apart}, with"
            f" {100 * self.share:.2g} % of the grouped weights, differ by"
            f" factors of up to {self.spread:.3g}"
        )
        if self.share < FEW:
            return (
                f"{text}: with so few weights this seldom matters;"
                " report.select can leave them ordinary"
            )
        return f"{text}: {self.remedy}"
