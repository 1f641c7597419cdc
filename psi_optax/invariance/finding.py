"""Facts about the scale of single parameters."""

import dataclasses
import math
from typing import Literal

from psi_optax.groups import ScaleGroup

Kind = Literal[
    "proved",
    "proved up to epsilon",
    "proved within a bound",
    "measured",
    "stated",
    "ordinary",
    "inert",
    "partly",
]


@dataclasses.dataclass(frozen=True)
class Finding:
    """The scale groups of one parameter, and how they are known.

    Attributes:
        path: its normalized path.
        shape: its shape.
        group: its scale groups, or None.
        kind: "proved"; "proved up to epsilon"; "proved within a bound" (and up
            to epsilon, if there is one); "measured"; "stated" (by the user, to
            `check_groups`); "ordinary"; "inert" (it gets no gradient);
            "partly" (a part of it is scale-invariant, which no `ScaleGroup`
            can state).
        epsilon: the largest normalization epsilon that the proof ignores; 0 if
            it holds exactly.
        bound: the proof holds while clipped values do not exceed it; infinite
            without a clip.
        deviation: the relative change of the loss when groups were multiplied
            by random numbers between 1/2 and 2; None if not measured.
            `find_groups` multiplies all groups that it found jointly, and the
            number is the same for all of them. `check_groups` multiplies those
            of one parameter, and those tied to it.
        reason: why it has no groups, or why they are not proved.
        note: a problem with its groups: a norm of zero.
    """

    path: str
    shape: tuple[int, ...]
    group: ScaleGroup | None
    kind: Kind
    epsilon: float = 0.0
    deviation: float | None = None
    reason: str = ""
    note: str = ""
    bound: float = math.inf

    @property
    def is_bounded(self) -> bool:
        """Whether the proof holds within a bound only."""
        return self.bound < math.inf


# By path.
Findings = dict[str, Finding]


def finding_paths(kind: Kind, findings: Findings) -> list[str]:
    """Return the paths of findings of a kind."""
    return [path for path, finding in findings.items() if finding.kind == kind]


def groups_of(findings: Findings) -> dict[str, ScaleGroup]:
    """Return the groups of the parameters that have any, by path."""
    return {p: f.group for p, f in findings.items() if f.group is not None}


def tied_with(
    path: str, groups: dict[str, ScaleGroup]
) -> dict[str, ScaleGroup]:
    """Return the groups of a parameter and of those tied to it, by path."""
    tie = groups[path].tie
    if tie is None:
        return {path: groups[path]}
    return {p: group for p, group in groups.items() if group.tie == tie}
