"""Digits of the indices of arrays, and how strides cut them."""

import itertools
from typing import NamedTuple

Axis = int | str


class Digit(NamedTuple):
    """A digit of the index along an axis.

    Attributes:
        axis: an axis of the array, or the name of another index: that of a mesh
            axis, of a loop, or of a lookup in a table.
        stride: the distance of indices whose digits differ by one.
        count: the number of values of the digit.
        over: the axes of the array that the index of a lookup is a function of.
    """

    axis: Axis
    stride: int
    count: int
    over: tuple[int, ...] = ()

    @property
    def is_lookup(self) -> bool:
        """Membership among lookups, whose index the program computes."""
        return isinstance(self.axis, str) and self.axis.startswith("lookup")

    @property
    def end(self) -> int:
        """The distance after which the digit repeats."""
        return self.stride * self.count


def is_cut_by(digit: Digit, stride: int) -> bool:
    """Check that a stride cuts a digit in two whole digits."""
    inside = digit.stride < stride < digit.end
    return inside and stride % digit.stride == 0 and digit.end % stride == 0


def is_part_of(digit: Digit, outer: Digit) -> bool:
    """Check that a digit is a part of another one, or equal to it."""
    return (
        digit.axis == outer.axis
        and outer.stride <= digit.stride
        and digit.end <= outer.end
        and digit.over == outer.over
    )


def halves(digit: Digit, stride: int) -> list[Digit]:
    """Return the two digits that a stride cuts one into, the slower first."""
    inner = stride // digit.stride
    return [
        digit._replace(stride=stride, count=digit.count // inner),
        digit._replace(count=inner),
    ]


def first_overlap(digits: list[Digit]) -> tuple[Digit, int, Digit] | None:
    """Return a digit, the stride at which another one cuts it, and the other.

    Returns None if any two digits are equal or disjoint.
    """
    for a, b in itertools.permutations(digits, 2):
        if a.axis != b.axis or a == b:
            continue
        if b.stride >= a.end or b.end <= a.stride:
            continue
        if a.over != b.over:
            return a, a.stride, b
        for stride in (b.stride, b.end):
            if a.stride < stride < a.end:
                return a, stride, b
    return None
