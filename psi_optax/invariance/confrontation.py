"""The confrontation of what is proved with what is measured."""

from psi_optax.groups import ScaleGroup
from psi_optax.invariance.probe import Probe
from psi_optax.invariance.report import Finding


def confront(probe: Probe, findings: dict[str, Finding]) -> None:
    """Check all that is proved: joint rescalings, and one gradient.

    Raises:
        RuntimeError: the loss changes, or a gradient that is proved to be zero
            is not.
    """
    groups = {p: f.group for p, f in findings.items() if f.group is not None}
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
    which is added to something that may be zero does not.
    """
    groups = {p: f.group for p, f in findings.items() if f.group is not None}
    if not groups or probe.holds(groups):
        return set()
    return {
        path
        for path in groups
        if findings[path].epsilon and not probe.holds(tied_with(path, groups))
    }


def tied_with(path: str, groups: dict[str, ScaleGroup]) -> dict:
    """The groups of a parameter, and of those that it is tied to."""
    tie = groups[path].tie
    if tie is None:
        return {path: groups[path]}
    return {p: group for p, group in groups.items() if group.tie == tie}
