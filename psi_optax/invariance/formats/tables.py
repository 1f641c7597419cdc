"""The full table of a report: a row for each parameter."""

from psi_optax._text import format_table
from psi_optax.groups import ScaleGroup
from psi_optax.invariance.finding import Finding, Findings, groups_of

Row = tuple[str, ...]

HEADER: Row = ("path", "shape", "axes", "groups", "tie", "known", "notes")


def table_rows(findings: Findings) -> list[Row]:
    """Return the rows of the table, without its header."""
    joint = joint_deviation(findings) is not None
    return [_row(finding, joint) for finding in findings.values()]


def format_report(findings: Findings, remark: str) -> str:
    """Return the table, with a last line that counts.

    Args:
        findings: one for each parameter, by path.
        remark: how to find more groups; "" if nothing is known.
    """
    tail = [
        f"{len(groups_of(findings))} of {len(findings)} parameters have scale"
        " groups"
    ]
    deviation = joint_deviation(findings)
    if deviation is not None:
        tail.append(f"rescaled jointly: deviation {deviation:.0e}")
    rows = format_table([HEADER, *table_rows(findings)])
    return "\n".join([*rows, "; ".join(tail) + remark])


def joint_deviation(findings: Findings) -> float | None:
    """Return the deviation, if several parameters have the same one."""
    grouped = [f for f in findings.values() if f.group is not None]
    deviations = {finding.deviation for finding in grouped}
    return deviations.pop() if len(grouped) > 1 == len(deviations) else None


def show_axes(group: ScaleGroup) -> str:
    """Return axes, "axis:n" for one that is cut into n blocks."""
    blocks = dict(group.blocks)
    axes = (f"{a}:{blocks[a]}" if a in blocks else str(a) for a in group.axes)
    return " ".join(axes) or "()"


def show_known(finding: Finding) -> str:
    """Return how groups are known, with the epsilon and the bound."""
    known = finding.kind
    if finding.epsilon:
        known = f"proved up to epsilon {finding.epsilon:.2g}"
    if finding.is_bounded:
        proved = known if finding.epsilon else "proved"
        known = f"{proved} while |x| <= {finding.bound:.2g}"
    return known


def printable(cells: Row) -> Row:
    r"""Return cells of one line each, with escapes such as "\n".

    Examples:
        >>> print(*printable(("a\nb",)))
        a\nb
    """
    return tuple(
        "".join(x if x.isprintable() else repr(x)[1:-1] for x in cell)
        for cell in cells
    )


def _row(finding: Finding, joint: bool) -> Row:
    """Return the cells of a row.

    Args:
        finding: the finding.
        joint: whether all deviations are one number, shown below the table.
    """
    notes = [finding.reason] if finding.reason else []
    if finding.deviation is not None and not joint:
        notes.append(f"deviation {finding.deviation:.0e}")
    if finding.note:
        notes.append(finding.note)
    axes, count, tie = "", "", ""
    if (group := finding.group) is not None:
        axes = show_axes(group)
        shape = group.group_shape(finding.shape)
        count = " x ".join(map(str, shape)) or "1"
        tie = group.tie or ""
    head = finding.path or "(root)", str(finding.shape)
    known = show_known(finding)
    return printable((*head, axes, count, tie, known, "; ".join(notes)))
