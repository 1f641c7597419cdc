"""Types of options: known names, and numbers in their range."""

import math
import pathlib
from collections.abc import Callable, Collection
from typing import Annotated, Any, TypeVar

from tyro.constructors import PrimitiveConstructorSpec

from benchmarks.harness.names import unknown

T = TypeVar("T")


def option(
    read: Callable[[str], T], metavar: str
) -> PrimitiveConstructorSpec[T]:
    """Return the annotation of an option of one word.

    Args:
        read: returns the value of the word, or raises a ValueError.
        metavar: stands for the word in the help.
    """
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: read(words[0]),
        is_instance=lambda _: True,
        str_from_instance=lambda value: [str(value)],
    )


def some(
    word: PrimitiveConstructorSpec[T], distinct: bool = True
) -> PrimitiveConstructorSpec[Any]:
    """Return the annotation of a tuple of one or more such words.

    Examples:
        >>> some(at_least(1)).instance_from_str(["2", "3"])
        (2, 3)
    """

    def read(words: list[str]) -> tuple[T, ...]:
        if not words:
            raise ValueError("name at least one.")
        values = tuple(word.instance_from_str([text]) for text in words)
        if distinct and len(set(values)) < len(values):
            raise ValueError(f"{' '.join(words)}: name each once.")
        return values

    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"{word.metavar} ...",
        instance_from_str=read,
        is_instance=lambda _: True,
        str_from_instance=lambda values: [str(value) for value in values],
    )


def one_of(names: Collection[str]) -> PrimitiveConstructorSpec[str]:
    """Return the annotation of an option that is one of these names."""

    def read(text: str) -> str:
        if text not in names:
            raise ValueError(unknown(text, names))
        return text

    return option(read, "{" + ",".join(names) + "}")


def at_least(least: int) -> PrimitiveConstructorSpec[int]:
    """Return the annotation of an integer that is not less than this."""
    return _checked(int, lambda x: x >= least, f"{least} or more", "INT")


def _checked(
    kind: Callable[[str], T], holds: Callable[[T], bool], words: str, name: str
) -> PrimitiveConstructorSpec[T]:
    def read(text: str) -> T:
        value = kind(text)
        if not holds(value):
            raise ValueError(f"{text}: it has to be {words}.")
        return value

    return option(read, name)


_POSITIVE = _checked(
    float, lambda x: 0 < x < math.inf, "more than 0, and finite", "FLOAT"
)
_FOLDER = _checked(
    pathlib.Path, pathlib.Path.is_dir, "a folder that is there", "FOLDER"
)

_SHARE = _checked(float, lambda x: 0 <= x < 1, "in [0, 1)", "FLOAT")

Count = Annotated[int, at_least(1)]
Counts = Annotated[tuple[int, ...], some(at_least(1), distinct=False)]
Share = Annotated[float, _SHARE]
Positive = Annotated[float, _POSITIVE]
Positives = Annotated[tuple[float, ...], some(_POSITIVE)]
Folder = Annotated[pathlib.Path, _FOLDER]
