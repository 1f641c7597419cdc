"""Options of command lines: names that are known, numbers in their range."""

import argparse
import difflib
import math
import pathlib
from collections.abc import Callable, Collection

__all__ = ["at_least", "existing", "one_of", "positive", "unknown"]


def unknown(text: str, names: Collection[str]) -> str:
    """What to say of a name that is none of these.

    Examples:
        >>> unknown("resnt", ["cnn", "resnet"])
        "'resnt' is none of cnn, resnet (is it 'resnet'?)"
        >>> unknown("x", ["cnn", "resnet"])
        "'x' is none of cnn, resnet"
    """
    near = difflib.get_close_matches(text, names, 1)
    return f"{text!r} is none of {', '.join(names)}" + "".join(
        f" (is it {found!r}?)" for found in near
    )


def one_of(names: Collection[str]) -> Callable[[str], str]:
    """The type of an option: one of these names.

    Args:
        names: those that are known.

    Returns:
        A function of the text, whose error for any other name lists all of
        them, and suggests the nearest one.
    """

    def name(text: str) -> str:
        if text in names:
            return text
        raise argparse.ArgumentTypeError(unknown(text, names))

    return name


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option: an integer that is not less than this.

    Examples:
        >>> at_least(1)("3")
        3
    """

    def number(text: str) -> int:
        found = int(text)
        if found < least:
            raise argparse.ArgumentTypeError(
                f"{found}: it has to be {least} or more"
            )
        return found

    return number


def positive(text: str) -> float:
    """The type of an option: a number that is more than 0, and finite.

    Examples:
        >>> positive("0.5")
        0.5
    """
    found = float(text)
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(
            f"{text}: it has to be more than 0, and finite"
        )
    return found


def existing(text: str) -> pathlib.Path:
    """The type of an option: a folder that is there.

    Examples:
        >>> existing(".")
        PosixPath('.')
    """
    folder = pathlib.Path(text)
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return folder
