"""A converted learning rate: what it means, and whether it fits all groups."""

import dataclasses
from typing import NamedTuple

import optax

from psi_optax._text import summarize
from psi_optax.groups import Tree

LARGE_STEP = 0.3  # Radians.
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
        rotation: of groups per step at this learning rate, or at the schedule's
            largest; None if it is unknown.
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
    rotation: RotationRange | None
    per_group: Tree
    spread: float
    apart: tuple[str, ...]
    share: float
    excluded: int
    to: str
    remedy: str

    @property
    def fits_all(self) -> bool:
        """Whether each group's own rate is within a factor of 2 of this one."""
        return self.spread <= FACTOR

    def __str__(self) -> str:
        rate = self.learning_rate
        shown = "a schedule" if callable(rate) else f"{rate:.3g}"
        lines = [f"learning rate ({self.to}): {shown}"]
        if self.rotation is not None:
            mean, low, high = (f"{x:.3g}" for x in self.rotation)
            lines.append(
                f"rotation: {mean} radians a step, {low} to {high} over groups"
            )
            if advice := self._advice_on_steps():
                lines.append(advice)
        if self.excluded:
            count = f"{self.excluded} group{'s' * (self.excluded > 1)}"
            lines.append(f"excluded: {count} that cannot rotate")
        return "\n".join([*lines, self._fit()])

    def _advice_on_steps(self) -> str:
        """Return an advice where steps are large; "" elsewhere."""
        if self.rotation is None or self.rotation.maximum <= LARGE_STEP:
            return ""
        return (
            f"a rotation above {LARGE_STEP} radians a step is large: was the"
            " learning rate tuned with these norms?"
        )

    def _fit(self) -> str:
        """Return whether one rate fits all groups, and the remedy if not."""
        own = f"their own are within a factor of {self.spread:.3g} of it"
        if self.fits_all:
            return f"one rate fits all groups: {own}"
        apart = summarize([repr(path) for path in self.apart], 4)
        return (
            f"one rate does not fit all groups: {own}, those of {apart} by more"
            f" than {FACTOR:.0f} ({100 * self.share:.2g} % of the grouped"
            f" weights); {self.remedy}"
        )
