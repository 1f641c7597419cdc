"""What the scripts write into pages of docs/: tables, between two markers."""

import pathlib
from collections.abc import Sequence

from benchmarks.harness import files
from benchmarks.harness.files import InputError

__all__ = ["DOCS", "check", "fill", "keep", "refill", "table"]

DOCS = pathlib.Path(__file__).parents[1] / "docs"


def table(rows: Sequence[Sequence[str]], right: bool = False) -> str:
    """An aligned table in Markdown.

    Args:
        rows: the head, then the rest; all of the same length.
        right: whether all columns but the first are flush right.

    Returns:
        The lines of the table.

    Examples:
        >>> print(table([["", "a"], ["long", "1.0"]], right=True))
        |      |   a |
        | ---- | --: |
        | long | 1.0 |
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    flush = [right and index > 0 for index in range(len(widths))]
    rule = [
        "-" * (width - 1) + (":" if last else "-")
        for width, last in zip(widths, flush, strict=True)
    ]
    lines = [
        [
            cell.rjust(width) if last else cell.ljust(width)
            for cell, width, last in zip(row, widths, flush, strict=True)
        ]
        for row in rows
    ]
    lines.insert(1, rule)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def fill(page: str, name: str, text: str) -> str:
    r"""The page with the text between the markers of this name.

    Args:
        page: a page that has one `<!-- name: begin -->` and, after it, one
            `<!-- name: end -->`.
        name: the markers' name.
        text: what stands between them from now on.

    Returns:
        The page; what is outside of the markers is unchanged.

    Raises:
        InputError: the page lacks a marker, or has one twice.

    Examples:
        >>> page = "Before.\n<!-- x: begin -->\nold\n<!-- x: end -->\nAfter.\n"
        >>> fill(page, "x", "new").split("\n\n")
        ['Before.\n<!-- x: begin -->', 'new', '<!-- x: end -->\nAfter.\n']
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, first, rest = page.partition(begin)
    _, second, after = rest.partition(end)
    if not (first and second) or begin in rest or end in before + after:
        raise InputError(f"the page needs one {begin} and then one {end}.")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def refill(path: pathlib.Path, name: str, text: str) -> None:
    """Fill the page in a file.

    Args:
        path: the file.
        name: as in `fill`.
        text: as in `fill`.

    Raises:
        InputError: as in `fill`; the message has the path.
        OSError: the file cannot be read or written.
    """
    files.write(path, _filled(path, name, text))


def check(path: pathlib.Path, *names: str) -> None:
    """Whether the page in a file can be filled, to ask before long work.

    Args:
        path: the file.
        names: those of markers.

    Raises:
        InputError: as in `refill`.
        OSError: the file cannot be read.
    """
    for name in names:
        _filled(path, name, "")


def _filled(path: pathlib.Path, name: str, text: str) -> str:
    try:
        return fill(path.read_text(encoding="utf-8"), name, text)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def keep(numbers: pathlib.Path, page: pathlib.Path) -> None:
    """Put the numbers of a page into the folder `numbers` beside it.

    Args:
        numbers: a file; one of its name is replaced.
        page: the file that shows them.
    """
    folder = page.parent / "numbers"
    folder.mkdir(exist_ok=True)
    files.write(folder / numbers.name, numbers.read_bytes())
