"""The confrontation of what is proved with what is measured."""

import math
from collections.abc import Iterator

from psi_optax.groups import ScaleGroup
from psi_optax.invariance.probe import Probe
from psi_optax.invariance.report import Finding


def confront(probe: Probe, findings: dict[str, Finding]) -> None:
    """Check all that is proved: joint rescalings, and one gradient.

    Raises:
        RuntimeError: the loss changes, or a gradient that is proved to be zero
            is not.
    """
    groups = {p: g for p, g in _groups(findings) if not _bounded(findings[p])}
    wrong = []
    if groups and not probe.holds(groups):
        wrong = [
            f"{path!r} with {groups[path]}: proved, but the loss changes by"
            f" {probe.deviation_if_large(tied_with(path, groups)):.1e}"
            for path in groups
            if not probe.holds(tied_with(path, groups))
        ] or ["all groups at once change the loss"]
    inert = [p for p, f in findings.items() if f.kind == "inert"]
    wrong += [
        f"{path!r}: inert, but it has a gradient"
        for path in inert
        if probe.has_gradient(path, groups)
    ]
    if wrong:
        raise RuntimeError(
            f"analysis and probe contradict each other: {'; '.join(wrong)}."
            " Please report it; meanwhile state groups by hand."
        )


def doubtful(probe: Probe, findings: dict[str, Finding]) -> set[str]:
    """What is proved up to a constant that is not the epsilon of a norm.

    The effect of an epsilon falls as the weights grow. That of a constant
    which is added to something that may be zero does not. And what is proved
    within a bound that is exceeded.
    """
    groups = dict(_groups(findings))
    bounded = {p: g for p, g in groups.items() if _bounded(findings[p])}
    others = {p: g for p, g in groups.items() if p not in bounded}
    found = {
        path
        for path in bounded
        if not probe.holds_within_bound(tied_with(path, bounded))
    }
    if not others or probe.holds(others):
        return found
    return found | {
        path
        for path in others
        if findings[path].epsilon and not probe.holds(tied_with(path, others))
    }


def _groups(findings: dict[str, Finding]) -> Iterator[tuple[str, ScaleGroup]]:
    for path, finding in findings.items():
        if finding.group is not None:
            yield path, finding.group


def _bounded(finding: Finding) -> bool:
    return finding.bound < math.inf


def tied_with(path: str, groups: dict[str, ScaleGroup]) -> dict:
    """The groups of a parameter, and of those that it is tied to."""
    tie = groups[path].tie
    if tie is None:
        return {path: groups[path]}
    return {p: group for p, group in groups.items() if group.tie == tie}
