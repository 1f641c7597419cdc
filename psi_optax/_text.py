"""Values as error messages show them."""

from collections.abc import Sequence
from typing import Any


def summarize(items: Sequence[str], most: int = 8) -> str:
    """List the first items, and count the rest.

    Examples:
        >>> summarize(["a", "b", "c"], most=2)
        'a, b, and 1 more'
    """
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return ", ".join([*items[:most], *more])


def short_repr(value: Any) -> str:
    """Return the repr of a value, or its type if the repr is long.

    Examples:
        >>> short_repr(0.1), short_repr(list(range(100)))
        ('0.1', 'a value of type list')
    """
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape and dtype is not None:
        return f"an array of shape {shape}, {dtype}"
    text = repr(value)
    if len(text) <= 80:
        return text
    return f"a value of type {type(value).__name__}"


def format_table(rows: list[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table with columns of equal width."""
    widths = [
        max(len(cell) for cell in column) for column in zip(*rows, strict=True)
    ]
    return [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
