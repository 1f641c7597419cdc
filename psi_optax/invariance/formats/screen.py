"""A summary as text: at most a screen of lines that are not too wide."""

import textwrap

from psi_optax._text import format_table
from psi_optax.invariance.finding import Findings
from psi_optax.invariance.formats.summary import (
    SUMMARY_HEADER,
    SummaryLine,
    count_groups,
    summary_lines,
    summary_rows,
)
from psi_optax.invariance.formats.tables import Row

# Columns and lines of a screen.
_WIDTH, HEIGHT = 100, 40
_LONGEST_PATTERN, _LONGEST_TIES = 44, 12


def format_summary(findings: Findings, remark: str) -> str:
    """Return a table of patterns, with a last line that counts.

    Args:
        findings: one for each parameter, by path.
        remark: how to find more groups; "" if nothing is known.
    """
    tail = textwrap.wrap(
        count_groups(findings) + remark,
        _WIDTH,
        break_long_words=False,
        break_on_hyphens=False,
    )
    lines = summary_lines(findings)
    kept = largest_lines(lines, HEIGHT - 1 - len(tail))
    rows = [SUMMARY_HEADER, *summary_rows(kept)]
    return "\n".join([*_format_rows(rows), *_omitted(lines, kept), *tail])


def largest_lines(lines: list[SummaryLine], room: int) -> list[SummaryLine]:
    """Return the lines that fit: those with and without groups, by weights.

    If not all of them fit, one more is left for a remark.
    """
    if len(lines) <= room:
        return lines
    room = max(room - 1, 8)
    grouped = [line for line in lines if line.is_grouped]
    others = lines[len(grouped) :]
    grouped = grouped[: max(room - len(others), room // 2)]
    return grouped + others[: room - len(grouped)]


def _omitted(lines: list[SummaryLine], kept: list[SummaryLine]) -> list[str]:
    if len(lines) == len(kept):
        return []
    count = len(lines) - len(kept)
    weights = sum(x.weights for x in lines) - sum(x.weights for x in kept)
    return [
        f"... and {count} smaller patterns of {weights:,} weights: print the"
        " report to see all"
    ]


def _format_rows(rows: list[Row]) -> list[str]:
    """Return a table in which reasons extend over the columns of groups."""
    heads = format_table(_heads(rows))
    tails = iter(
        format_table(
            [
                (axes, _without_end(ties, _LONGEST_TIES), known)
                for *_, axes, ties, known in rows
                if axes
            ]
        )
    )
    width = max(map(len, heads))
    return [
        _without_end(
            f"{head:<{width}}  {next(tails) if axes else known}", _WIDTH
        )
        for head, (*_, axes, _, known) in zip(heads, rows, strict=True)
    ]


def _heads(rows: list[Row]) -> list[Row]:
    """Return the first columns, with numbers at the right."""
    counts, weights = (max(len(row[k]) for row in rows) for k in (1, 2))
    return [
        (
            _without_middle(path, _LONGEST_PATTERN),
            count.rjust(counts),
            size.rjust(weights),
        )
        for path, count, size, *_ in rows
    ]


def _without_end(text: str, most: int) -> str:
    text = text.rstrip()
    if len(text) <= most:
        return text
    return f"{text[: most - 3].rstrip(' ,./')}..."


def _without_middle(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    half = (most - 3) // 2
    return f"{text[: most - 3 - half]}...{text[-half:]}"
