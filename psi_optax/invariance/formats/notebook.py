"""Reports as HTML, for notebooks."""

import html

from psi_optax.invariance.finding import Findings
from psi_optax.invariance.formats.screen import HEIGHT, largest_lines
from psi_optax.invariance.formats.summary import (
    SUMMARY_HEADER,
    count_groups,
    summary_lines,
    summary_rows,
)
from psi_optax.invariance.formats.tables import HEADER, Row, table_rows


def format_html(findings: Findings, remark: str) -> str:
    """Return the table of parameters; a long one is below its summary.

    Args:
        findings: one for each parameter, by path.
        remark: how to find more groups; "" if nothing is known.
    """
    tail = f"<p>{html.escape(count_groups(findings) + remark)}</p>"
    whole = _table(HEADER, table_rows(findings))
    if len(findings) <= HEIGHT:
        return whole + tail
    lines = largest_lines(summary_lines(findings), HEIGHT)
    summary = _table(SUMMARY_HEADER, summary_rows(lines))
    title = f"<summary>All {len(findings)} parameters</summary>"
    return f"{summary}{tail}<details>{title}{whole}</details>"


def _table(header: Row, rows: list[Row]) -> str:
    head = _row(header, "th")
    body = "\n".join(_row(row, "td") for row in rows)
    return (
        f"<table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>\n"
    )


def _row(row: Row, tag: str) -> str:
    cells = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
    return f"<tr>{cells}</tr>"
