"""Cross-check the findings of the analysis with measurements."""

from collections.abc import Callable, Iterable

from psi_optax.invariance.finding import (
    Findings,
    finding_paths,
    groups_of,
    tied_with,
)
from psi_optax.invariance.probe.probe import Probe


def cross_check(
    probe: Probe, findings: Findings, prove_strictly: Callable[[], Findings]
) -> Findings:
    """Check all proved groups, by joint rescalings.

    The effect of an epsilon falls as the weights grow. That of a constant that
    is added to a value that may be zero does not: such a finding is replaced by
    the strict one.

    Args:
        probe: the measurements.
        findings: those of the analysis.
        prove_strictly: returns its findings without any epsilon.

    Returns:
        The findings that no measurement contradicts.

    Raises:
        RuntimeError: the loss changes.
    """
    changes = _changes(probe, findings)
    doubted = [
        path
        for path in changes
        if path is not None
        and (findings[path].epsilon or findings[path].is_bounded)
    ]
    if doubted:
        strict = prove_strictly()
        findings = findings | {path: strict[path] for path in doubted}
        changes = _changes(probe, findings)
    _raise_if_any(changes.values())
    return findings


def cross_check_inert(probe: Probe, findings: Findings) -> None:
    """Check all parameters that are proved to be inert, by one gradient.

    Raises:
        RuntimeError: one of them has a gradient.
    """
    groups = groups_of(findings)
    _raise_if_any(
        f"{path!r}: inert, but it has a gradient"
        for path in finding_paths("inert", findings)
        if probe.gradients.is_nonzero(path, groups)
    )


def _raise_if_any(contradictions: Iterable[str]) -> None:
    if text := "; ".join(contradictions):
        raise RuntimeError(
            f"analysis and probe contradict each other: {text}."
            " Please report it; meanwhile state groups by hand."
        )


def _changes(probe: Probe, findings: Findings) -> dict[str | None, str]:
    """Return the paths of groups that change the loss, with a description.

    None stands for all paths.
    """
    groups = groups_of(findings)
    bounded = {p: g for p, g in groups.items() if findings[p].is_bounded}
    found: dict[str | None, str] = {
        path: f"{path!r} with {groups[path]}: proved within a bound that acts"
        for path in bounded
        if not probe.holds_within_bound(tied_with(path, bounded))
    }
    groups = {p: g for p, g in groups.items() if p not in bounded}
    if not groups or probe.holds(groups):
        return found
    deviations = {
        path: probe.deviation_if_large(tied_with(path, groups))
        for path in groups
    }
    changed = {
        path: f"{path!r} with {groups[path]}: proved, but the loss changes by"
        f" {deviation:.1e}"
        for path, deviation in deviations.items()
        if deviation > probe.tolerance
    }
    return found | (changed or {None: "all groups jointly change the loss"})
