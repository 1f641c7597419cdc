"""Tables and texts that measurements write into pages, between two markers."""

import pathlib
import textwrap
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from tabulate import tabulate

from benchmarks.harness import files
from benchmarks.harness.results import Content

DOCS = pathlib.Path(__file__).parents[2] / "docs"


def table(rows: Sequence[Sequence[str]], right: bool = False) -> str:
    """Return a table in Markdown, of the head and rows of the same length.

    With `right` all columns but the first are flush right.

    Examples:
        >>> print(table([["", "a"], ["long", "1.0"]], right=True))
        |      |   a |
        |:-----|----:|
        | long | 1.0 |
    """
    head, *body = rows
    if {len(row) for row in rows} != {len(head)}:
        raise ValueError(f"rows are not all as long as {head}.")
    others = "right" if right else "left"
    return tabulate(
        body,
        head,
        tablefmt="pipe",
        disable_numparse=True,
        colalign=["left", *[others] * (len(head) - 1)] if body else None,
    )


def spread(values: ArrayLike, digits: int, between: str = " ± ") -> str:
    """Return mean and standard deviation; of a value alone no deviation.

    Examples:
        >>> spread([1.0, 2.0], 2), spread([1.0], 1), spread([1.0, None], 2)
        ('1.50 ± 0.71', '1.0', 'diverged')
    """
    values = np.array(values, float)
    if not np.isfinite(values).all():
        return "diverged"
    shown = [values.mean(), *([values.std(ddof=1)] if len(values) > 1 else [])]
    return between.join(f"{x:.{digits}f}" for x in shown)


def settings(content: Content) -> str:
    """Return the settings of a measurement in a line.

    Examples:
        >>> settings({"settings": {"batch_size": 64, "rates": [0.1, 1.0]}})
        'Settings: batch size 64; rates 0.1, 1.'
    """
    shown = []
    for name, value in content["settings"].items():
        values = value if isinstance(value, list | tuple) else [value]
        words = (x if isinstance(x, str) else f"{x:g}" for x in values)
        shown.append(f"{name.replace('_', ' ')} {', '.join(words)}")
    return f"Settings: {'; '.join(shown)}."


def wrap(text: str) -> str:
    """Return a paragraph in lines of at most 80 characters."""
    return textwrap.fill(text, 80, break_on_hyphens=False)


def fill(page: str, name: str, text: str) -> str:
    r"""Return the page with the text between the markers of this name.

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
        raise files.InputError(
            f"the page needs one {begin} and then one {end}."
        )
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def has(path: pathlib.Path, name: str) -> bool:
    """Tell whether the page in a file has markers of this name."""
    return f"<!-- {name}: begin -->" in path.read_text(encoding="utf-8")


def refill(path: pathlib.Path, name: str, text: str) -> None:
    """Fill the page in a file, see `fill`; an error names the file."""
    try:
        page = fill(path.read_text(encoding="utf-8"), name, text)
    except files.InputError as error:
        raise files.InputError(f"{path}: {error}") from error
    files.write(path, page)
