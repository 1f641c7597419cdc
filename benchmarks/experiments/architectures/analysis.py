"""The groups of a network: weights by pattern of parameters."""

import math
from typing import Any

import psi_optax
from benchmarks.problems import Problem
from psi_optax.invariance.formats.summary import SummaryLine, summary_lines
from psi_optax.invariance.formats.tables import show_axes

OWN, JOINT = "own", "joint"
"""Kinds of lines whose parameters have groups: alone, or tied to others."""


def analyse(problem: Problem, select: str) -> dict[str, Any]:
    """Return the proved scale groups of a network.

    Args:
        problem: the network.
        select: pattern of the paths whose groups are advised; empty for none.

    Returns:
        Lines, each of parameters that differ in numbers of layers; the number
        of joint groups; and the number of selected weights.
    """
    loss, params, args = problem
    found = psi_optax.find_groups(loss, params, *args, method="analysis")
    return {
        "lines": [_line(line) for line in summary_lines(found.findings)],
        "joint_groups": _count_joint_groups(found),
        "selected": _count_weights(found.select(select)) if select else 0,
    }


def _line(line: SummaryLine) -> dict[str, Any]:
    finding = line.findings[0]
    kind, axes = finding.kind, ""
    if (group := finding.group) is not None:
        kind, axes = JOINT if group.tie else OWN, show_axes(group)
    return {
        "pattern": line.pattern,
        "weights": line.weights,
        "kind": kind,
        "axes": axes,
    }


def _count_joint_groups(report: psi_optax.GroupReport) -> int:
    """Count groups of several parameters, each once."""
    counts = {
        finding.group.tie: math.prod(finding.group.group_shape(finding.shape))
        for finding in report.findings.values()
        if finding.group is not None and finding.group.tie
    }
    return sum(counts.values())


def _count_weights(report: psi_optax.GroupReport) -> int:
    """Count the weights that have groups."""
    return sum(
        math.prod(finding.shape)
        for finding in report.findings.values()
        if finding.group is not None
    )
