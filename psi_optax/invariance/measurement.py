"""Add the probe's measurements to the findings of the analysis."""

import collections
import dataclasses
import math

from psi_optax.groups import ScaleGroup
from psi_optax.invariance.cross_check import cross_check_inert
from psi_optax.invariance.finding import (
    Finding,
    Findings,
    Kind,
    finding_paths,
    groups_of,
)
from psi_optax.invariance.probe.probe import Probe
from psi_optax.invariance.probe.screening import make_screen
from psi_optax.invariance.probe.search import find_candidates, find_measured

_NO_EFFECT = "has no effect on these arguments"


def measure(probe: Probe, findings: Findings) -> Findings:
    """Return the findings with measured ones, and their deviation.

    Two sorts of parameters are searched: those without groups, and the members
    of ties in which one has no effect, such as a bias in front of a mean that
    the analysis does not know. The others of such a tie may have finer groups.

    Raises:
        RuntimeError: a parameter that is proved to be inert has a gradient.
    """
    weights = probe.points.paths
    ordinary = [p for p in finding_paths("ordinary", findings) if p in weights]
    loose = _loosely_tied(probe, findings)
    inert = finding_paths("inert", findings)
    screen = make_screen(probe, ordinary, [*inert, *loose])
    candidates = find_candidates(probe, ordinary, screen)
    probe.gradients.compiled = frozenset({*inert, *candidates.paths, *loose})
    cross_check_inert(probe, findings)
    candidates = candidates._replace(alone=[*candidates.alone, *loose])
    found = dict(findings)
    for path, group in find_measured(probe, candidates).items():
        found[path] = _measured(found[path], group, probe.points.untried)
    return _with_deviation(probe, _without_single_ties(found))


def _measured(
    before: Finding, group: ScaleGroup | None, untried: str
) -> Finding:
    """Return a finding with what was measured, in all states that were tried.

    Args:
        before: the finding of the analysis.
        group: the measured group; None of an inert parameter.
        untried: why others were not; "" if there are none.
    """
    kind: Kind = "inert" if group is None else "measured"
    reason = _NO_EFFECT if group is None else _end_of_proof(before)
    if group is None or not untried:
        return Finding(before.path, before.shape, group, kind, reason=reason)
    if before.group is not None:
        return before
    reason = f"not measured, as {untried}"
    return dataclasses.replace(before, reason=reason)


def _loosely_tied(probe: Probe, findings: Findings) -> list[str]:
    """Return the members of ties in which a smaller one has no effect.

    Such as a bias, tied to the kernel of its layer.
    """
    ties: dict[str, list[str]] = {}
    for path, group in groups_of(findings).items():
        if group.tie is not None:
            ties.setdefault(group.tie, []).append(path)
    loose = []
    for members in ties.values():
        sizes = {path: math.prod(findings[path].shape) for path in members}
        smaller = [p for p in members if sizes[p] < max(sizes.values())]
        if not all(map(probe.has_effect, smaller)):
            loose += members
    return loose


def _end_of_proof(finding: Finding) -> str:
    """Return the reason of the analysis, if it names a line."""
    if finding.group is not None:
        return "proved only with the others of a tie, one of them inert"
    return finding.reason if ", at " in finding.reason else ""


def _without_single_ties(findings: Findings) -> Findings:
    """Return the findings without ties of one parameter."""
    groups = groups_of(findings)
    counts = collections.Counter(group.tie for group in groups.values())
    return findings | {
        path: dataclasses.replace(
            findings[path], group=dataclasses.replace(group, tie=None)
        )
        for path, group in groups.items()
        if counts[group.tie] == 1
    }


def _with_deviation(probe: Probe, findings: Findings) -> Findings:
    """Return the findings with the deviation of all groups jointly."""
    groups = groups_of(findings)
    if not groups:
        return findings
    deviation = probe.deviation(groups)
    return findings | {
        path: dataclasses.replace(findings[path], deviation=deviation)
        for path in groups
    }
