"""The findings of a report by pattern: a line for the layers of a network."""

import collections
import math
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

from psi_optax.invariance.finding import Finding, Findings, groups_of
from psi_optax.invariance.formats.layers import (
    LayerPath,
    Numbers,
    boxes_of,
    is_in,
    numbers_by_texts,
    show_box,
    show_ranges,
    split_path,
)
from psi_optax.invariance.formats.short_reasons import (
    general_reasons,
    shorten_reason,
    words_before_paths,
)
from psi_optax.invariance.formats.tables import (
    Row,
    joint_deviation,
    printable,
    show_axes,
    show_known,
)

SUMMARY_HEADER: Row = (
    *("pattern", "params", "weights", "axes", "ties", "known"),
)


class SummaryLine(NamedTuple):
    """Parameters of one pattern, with equal findings.

    Attributes:
        pattern: their path, with "*" for numbers.
        findings: one for each parameter.
        reason: why they have no groups, or why these are not proved.
    """

    pattern: str
    findings: list[Finding]
    reason: str

    @property
    def weights(self) -> int:
        """The number of weights of all parameters."""
        return _count_weights(self.findings)

    @property
    def is_grouped(self) -> bool:
        """Return whether the parameters have groups."""
        return self.findings[0].group is not None

    @property
    def order(self) -> tuple[bool, int, str]:
        """A key that sorts groups first, then by weights."""
        return not self.is_grouped, -self.weights, self.pattern


def _count_weights(findings: Iterable[Finding]) -> int:
    return sum(math.prod(finding.shape) for finding in findings)


def summary_lines(findings: Findings) -> list[SummaryLine]:
    """Return lines with all parameters: groups first, each by weights."""
    reasons = general_reasons(findings)
    known = numbers_by_texts(findings)
    parts: dict[Hashable, dict[LayerPath, Finding]] = {}
    for path, finding in findings.items():
        layer = split_path(path)
        key = layer.texts, _verdict(finding, reasons[path])
        parts.setdefault(key, {})[layer] = finding
    lines = [
        line
        for part in parts.values()
        for line in _lines_of(part, known, reasons)
    ]
    return sorted(lines, key=lambda line: line.order)


def _verdict(finding: Finding, reason: str) -> Hashable:
    """Return facts that are the same for all parameters of a line."""
    group = finding.group
    facts = () if group is None else (group.axes, group.blocks, not group.tie)
    words = words_before_paths(reason)
    return facts, show_known(finding), words, bool(finding.note)


def _lines_of(
    part: dict[LayerPath, Finding],
    known: dict[tuple[str, ...], set[Numbers]],
    reasons: dict[str, str],
) -> list[SummaryLine]:
    """Return a line, or several if one pattern cannot state the paths."""
    texts = next(iter(part)).texts
    members = {path.numbers for path in part}
    ordered = sorted(part, key=lambda path: path.order)
    lines = []
    for box in boxes_of(members, known[texts] - members):
        here = [part[path] for path in ordered if is_in(path.numbers, box)]
        counts = collections.Counter(reasons[x.path] for x in here)
        [(reason, _)] = counts.most_common(1)
        lines.append(SummaryLine(show_box(texts, box), here, reason))
    return lines


def summary_rows(lines: Sequence[SummaryLine]) -> list[Row]:
    """Return the cells of lines; ties are numbered in their order."""
    numbers: dict[str, int] = {}
    rows: list[Row] = []
    for line in lines:
        ties = [x.group.tie for x in line.findings if x.group and x.group.tie]
        here = [numbers.setdefault(tie, len(numbers) + 1) for tie in ties]
        head = (
            line.pattern or "(root)",
            str(len(line.findings)),
            f"{line.weights:,}",
        )
        rows.append(printable((*head, *_cells(line, show_ranges(here)))))
    return rows


def _cells(line: SummaryLine, ties: str) -> Row:
    first = line.findings[0]
    axes = "" if first.group is None else show_axes(first.group)
    known = show_known(first)
    if line.reason:
        reason = shorten_reason(line.reason, line.pattern)
        known += f"{'; ' if line.is_grouped else ': '}{reason}"
    if first.note:
        known = f"{first.note.partition(':')[0]}; {known}"
    return axes, ties, known


def count_groups(findings: Findings) -> str:
    """Return how many weights have groups, and how many groups there are."""
    grouped = groups_of(findings)
    weights = _count_weights(findings[path] for path in grouped)
    total = _count_weights(findings.values())
    share = 100 * weights / total if total else 0.0
    deviation = joint_deviation(findings)
    return (
        f"{weights:,} of {total:,} weights ({share:.1f} %) in"
        f" {_groups(findings):,} groups; {len(grouped)} of"
        f" {len(findings)} parameters"
        + ("" if deviation is None else f"; deviation {deviation:.0e}")
    )


def _groups(findings: Findings) -> int:
    """Return the number of groups; tied parameters share theirs."""
    counts = {
        ("untied", path) if group.tie is None else ("tie", group.tie): (
            math.prod(group.group_shape(findings[path].shape))
        )
        for path, group in groups_of(findings).items()
    }
    return sum(counts.values())
