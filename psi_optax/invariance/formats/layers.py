"""Paths that differ only in numbers: the layers of a network.

A path is split into texts and numbers: "block_3/layer_0/kernel" into
("block_", "/layer_", "/kernel") and ("3", "0"). Paths with equal texts are one
parameter in several layers.
"""

import collections
import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

Numbers = tuple[str, ...]

# For each number of a path, the values that it may take; None for any.
Box = tuple[frozenset[str] | None, ...]


class LayerPath(NamedTuple):
    """A path in two parts.

    Attributes:
        texts: the texts around its numbers, one more than numbers.
        numbers: its runs of digits.
    """

    texts: tuple[str, ...]
    numbers: Numbers

    @property
    def order(self) -> tuple[tuple[str, ...], tuple[int, ...], Numbers]:
        """A key that sorts numbers by size."""
        return self.texts, tuple(map(int, self.numbers)), self.numbers


def split_path(path: str) -> LayerPath:
    """Return the texts and the numbers of a path.

    Examples:
        >>> split_path("block_3/layer_10/kernel")
        LayerPath(texts=('block_', '/layer_', '/kernel'), numbers=('3', '10'))
    """
    parts = re.split(r"(\d+)", path)
    return LayerPath(tuple(parts[::2]), tuple(parts[1::2]))


def join_path(texts: tuple[str, ...], numbers: Iterable[str]) -> str:
    """Return texts with something in the place of each number."""
    return "".join(
        text + number
        for text, number in zip(texts, (*numbers, ""), strict=True)
    )


def numbers_by_texts(
    paths: Iterable[str],
) -> dict[tuple[str, ...], set[Numbers]]:
    """Return the numbers of all paths that have the same texts."""
    found = collections.defaultdict(set)
    for path in paths:
        texts, numbers = split_path(path)
        found[texts].add(numbers)
    return dict(found)


def is_in(numbers: Numbers, box: Box) -> bool:
    """Return whether a box contains the numbers of a path."""
    return all(
        values is None or number in values
        for number, values in zip(numbers, box, strict=True)
    )


def boxes_of(
    members: Collection[Numbers], others: Collection[Numbers]
) -> list[Box]:
    """Return few boxes that divide the members, and contain none of the others.

    A number that differs between members may take any value where this lets in
    no path that is known.

    Examples:
        >>> members, head = [("0",), ("1",)], ("2",)
        >>> boxes_of(members, [])
        [(None,)]
        >>> [box] = boxes_of(members, [head])
        >>> sorted(box[0])
        ['0', '1']
    """
    return _widened(_cover(members, others), members, others)


def _widened(
    boxes: list[Box],
    members: Collection[Numbers],
    others: Collection[Numbers],
) -> list[Box]:
    return [
        _widen(box, [*others, *(x for x in members if not is_in(x, box))])
        for box in boxes
    ]


def _cover(
    members: Collection[Numbers], others: Collection[Numbers]
) -> list[Box]:
    """Return the fewest boxes that hold members alone, with little to list."""
    box = tuple(map(frozenset, zip(*members, strict=True)))
    if not any(is_in(numbers, box) for numbers in others):
        return [box]
    # A box with others in it is more than its members, and can be cut.
    cuts = [_cut(members, position) for position in range(len(box))]
    covers = [
        [box for part in parts for box in _cover(part, others)]
        for parts in cuts
        if len(parts) > 1
    ]

    def cost(boxes: list[Box]) -> tuple[int, int]:
        wide = _widened(boxes, members, others)
        listed = (values for box in wide for values in box if values)
        return len(boxes), sum(len(values) for values in listed)

    return min(covers, key=cost)


def _cut(members: Collection[Numbers], position: int) -> list[list[Numbers]]:
    """Cut members by one number; values with the same other numbers stay."""
    rests = collections.defaultdict(set)
    for numbers in members:
        rest = numbers[:position] + numbers[position + 1 :]
        rests[numbers[position]].add(rest)
    parts = collections.defaultdict(list)
    for numbers in members:
        parts[frozenset(rests[numbers[position]])].append(numbers)
    return list(parts.values())


def _widen(box: Box, others: Collection[Numbers]) -> Box:
    """Allow any value of a number where none of the others gets in."""
    for position, values in enumerate(box):
        if values is not None and len(values) > 1:
            wider = (*box[:position], None, *box[position + 1 :])
            if not any(is_in(numbers, wider) for numbers in others):
                box = wider
    return box


def show_box(texts: tuple[str, ...], box: Box) -> str:
    """Return a pattern for people.

    Examples:
        >>> show_box(("block_", "/layer_", ""), (None, frozenset("0124")))
        'block_*/layer_{0-2,4}'
    """
    return join_path(
        texts, ("*" if x is None else show_numbers(x) for x in box)
    )


def show_numbers(values: Iterable[str]) -> str:
    """Return one number, or several in braces."""
    values = list(values)
    if len(values) == 1:
        return values[0]
    return f"{{{show_ranges(map(int, values))}}}"


def show_ranges(numbers: Iterable[int]) -> str:
    """Return numbers with ranges of consecutive ones.

    Examples:
        >>> show_ranges([4, 0, 2, 1])
        '0-2,4'
    """
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{a}-{b}" if a < b else f"{a}" for a, b in ranges)


def patterns_by_path(paths: Collection[str]) -> dict[str, str]:
    """Return each path with "*" for the numbers that differ between layers."""
    known = {
        texts: show_box(texts, box)
        for texts, members in numbers_by_texts(paths).items()
        for box in boxes_of(members, ())
    }
    return {path: known[split_path(path).texts] for path in paths}


def shared_start(paths: Collection[str]) -> str:
    """Return the first components that all paths have in common.

    Examples:
        >>> shared_start(["layer_1/norm/scale", "layer_1/norm/bias"])
        'layer_1/norm'
        >>> shared_start(["layer_1/norm", "layer_10/norm"])
        ''
    """
    shared = []
    for components in zip(*(path.split("/") for path in paths), strict=False):
        if len(set(components)) > 1:
            break
        shared.append(components[0])
    return "/".join(shared)
