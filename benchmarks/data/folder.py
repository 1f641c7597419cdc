"""The folder of data sets, named by an environment variable, and its files."""

import os
import pathlib
import zlib
from collections.abc import Callable, Iterable
from typing import TypeVar

from benchmarks.harness.files import InputError

VARIABLE = "PSI_OPTAX_DATA"
T = TypeVar("T")


def given() -> pathlib.Path | None:
    """Return the folder that the variable names, or None if it is not set."""
    path = os.environ.get(VARIABLE)
    return pathlib.Path(path) if path else None


def places(subfolder: str) -> list[pathlib.Path]:
    """List the folders to search: the subfolder first, then the folder."""
    folder = given()
    return [folder / subfolder, folder] if folder else []


def first_sound(
    file: str,
    copies: Iterable[pathlib.Path],
    decode: Callable[[bytes], T],
    advice: str,
) -> T:
    """Decode the first copy of a file that is there and not damaged."""
    damaged = []
    for path in filter(pathlib.Path.is_file, copies):
        try:
            return decode(path.read_bytes())
        except (OSError, EOFError, InputError, zlib.error) as error:
            damaged.append(f"{path} ({error})")
    advice = f"{advice} in {VARIABLE}. {remark()}"
    if damaged:
        raise InputError(
            f"{file} is damaged, or another data set's: {'; '.join(damaged)}."
            f" {advice}"
        )
    raise FileNotFoundError(f"{file} is missing. {advice}")


def remark() -> str:
    """Return how the variable is set, as the last sentence of an error."""
    folder = given()
    if folder is None:
        return f"{VARIABLE} is not set."
    missing = "" if folder.is_dir() else ", which is no folder"
    return f"{VARIABLE} is {folder}{missing}."
