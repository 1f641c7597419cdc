"""What the probe adds to the findings of the analysis."""

import collections
import dataclasses
import math

from psi_optax.invariance.cross_check import (
    Findings,
    confront_inert,
    grouped,
    of_kind,
)
from psi_optax.invariance.probe.probe import Probe
from psi_optax.invariance.probe.search import find_candidates, find_measured
from psi_optax.invariance.report import Finding

_NO_EFFECT = "changes nothing on these arguments"


def measure(probe: Probe, findings: Findings) -> Findings:
    """Return the findings with those of the probe, and how well they hold.

    It tries parameters without groups, and ties in which a member has no
    effect: a bias in front of a mean that the analysis does not know. The
    others of such a tie may have finer groups.

    Raises:
        RuntimeError: what is proved to be inert has a gradient.
    """
    ordinary = of_kind("ordinary", findings)
    candidates = find_candidates(
        probe, [path for path in ordinary if path in probe.given.leaves]
    )
    loose = _loose(probe, findings)
    probe.paths = frozenset(
        {*of_kind("inert", findings), *candidates.paths, *loose}
    )
    confront_inert(probe, findings)
    candidates.alone.extend(loose)
    found = dict(findings)
    for path, group in find_measured(probe, candidates).items():
        before = found[path]
        found[path] = Finding(
            path,
            before.shape,
            group,
            "measured" if group is not None else "inert",
            reason=_NO_EFFECT if group is None else _end_of_proof(before),
        )
    return _with_deviation(probe, _cut(found))


def _loose(probe: Probe, findings: Findings) -> list[str]:
    """Return the members of ties in which one of the smaller has no effect.

    Such as a bias, tied to the kernel of its layer.
    """
    ties: dict[str, list[str]] = {}
    for path, group in grouped(findings).items():
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


def _cut(findings: Findings) -> Findings:
    """Return the findings without ties of one parameter."""
    ties = collections.Counter(g.tie for g in grouped(findings).values())
    return {
        path: dataclasses.replace(
            found, group=dataclasses.replace(found.group, tie=None)
        )
        if found.group is not None and ties[found.group.tie] == 1
        else found
        for path, found in findings.items()
    }


def _with_deviation(probe: Probe, findings: Findings) -> Findings:
    groups = grouped(findings)
    if not groups:
        return findings
    deviation = probe.deviation(groups)
    return findings | {
        path: dataclasses.replace(findings[path], deviation=deviation)
        for path in groups
    }
