"""The confrontation of what is proved with what is measured."""

import math
from collections.abc import Callable, Iterable

from psi_optax.groups import ScaleGroup
from psi_optax.invariance.probe.probe import Probe
from psi_optax.invariance.report import Finding

Findings = dict[str, Finding]


def confront(
    probe: Probe, findings: Findings, prove_strictly: Callable[[], Findings]
) -> Findings:
    """Check all groups that are proved, by joint rescalings.

    The effect of an epsilon falls as the weights grow. That of a constant
    which is added to something that may be zero does not: such a finding is
    replaced by the strict one.

    Args:
        probe: the loss.
        findings: those of the analysis.
        prove_strictly: returns its findings without any epsilon.

    Returns:
        The findings that are not contradicted.

    Raises:
        RuntimeError: the loss changes.
    """
    wrong = _changes(probe, findings)
    doubted = [
        path
        for path in wrong
        if path is not None
        and (findings[path].epsilon or _is_bounded(findings[path]))
    ]
    if doubted:
        strict = prove_strictly()
        findings = findings | {path: strict[path] for path in doubted}
        wrong = _changes(probe, findings)
    _report(wrong.values())
    return findings


def confront_inert(probe: Probe, findings: Findings) -> None:
    """Check all that is proved to be inert, by one gradient.

    Raises:
        RuntimeError: it is not zero.
    """
    groups = grouped(findings)
    _report(
        f"{path!r}: inert, but it has a gradient"
        for path in of_kind("inert", findings)
        if probe.has_gradient(path, groups)
    )


def _report(wrong: Iterable[str]) -> None:
    if found := "; ".join(wrong):
        raise RuntimeError(
            f"analysis and probe contradict each other: {found}."
            " Please report it; meanwhile state groups by hand."
        )


def _changes(probe: Probe, findings: Findings) -> dict[str | None, str]:
    """Return which groups change the loss, in words; None stands for all."""
    groups = grouped(findings)
    bounded = {p: g for p, g in groups.items() if _is_bounded(findings[p])}
    wrong: dict[str | None, str] = {
        path: f"{path!r} with {groups[path]}: proved within a bound, which acts"
        for path in bounded
        if not probe.holds_within_bound(tied_with(path, bounded))
    }
    groups = {p: g for p, g in groups.items() if p not in bounded}
    if not groups or probe.holds(groups):
        return wrong
    alone = {
        path: probe.deviation_if_large(tied_with(path, groups))
        for path in groups
    }
    changed = {
        path: f"{path!r} with {groups[path]}: proved, but the loss changes by"
        f" {change:.1e}"
        for path, change in alone.items()
        if change > probe.tolerance
    }
    return wrong | (changed or {None: "all groups at once change the loss"})


def _is_bounded(finding: Finding) -> bool:
    return finding.bound < math.inf


def of_kind(kind: str, findings: Findings) -> list[str]:
    """Return the parameters that are of a kind."""
    return [path for path, found in findings.items() if found.kind == kind]


def grouped(findings: Findings) -> dict[str, ScaleGroup]:
    """Return the groups of those parameters that have any."""
    return {p: f.group for p, f in findings.items() if f.group is not None}


def tied_with(
    path: str, groups: dict[str, ScaleGroup]
) -> dict[str, ScaleGroup]:
    """Return the groups of a parameter, and of those that it is tied to."""
    tie = groups[path].tie
    if tie is None:
        return {path: groups[path]}
    return {p: group for p, group in groups.items() if group.tie == tie}
