"""Files that are whole or not there, and errors that say which file it was.

What is written goes to a file or folder beside, named `*.unfinished`, and takes
its place in one move when all of it is on the disk. If the disk is full, or the
program is stopped, what was there before remains, and nothing else; after a
crash `*.unfinished` may be left, which the next writing replaces.
"""

import contextlib
import io
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from benchmarks.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "make_folder",
    "named",
    "read_json",
    "whole",
    "whole_folder",
    "write",
    "write_array",
    "write_figure",
]


@contextlib.contextmanager
def named(path: pathlib.Path) -> Iterator[None]:
    """Within it, errors have the path, which those of a full disk lack."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise OSError(error.errno, why, str(path)) from error


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """A file to write to, which is at its path when all of it is written.

    Args:
        path: where it will be; a file that is there is replaced then.

    Yields:
        The open file.

    Raises:
        OSError: it cannot be written. The message has the path.

    Examples:
        >>> with whole(pathlib.Path("/nowhere/file")) as file:
        ...     pass
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/file'
    """
    unfinished = _beside(path)
    try:
        with named(path), unfinished.open("wb") as file:
            yield file
            file.flush()
            # Otherwise a crash of the machine may leave an empty file behind
            # a move that is done.
            os.fsync(file.fileno())
        with named(path):
            os.replace(unfinished, path.resolve())
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


@contextlib.contextmanager
def whole_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder to be filled, which is at its path when all of it is written.

    Args:
        path: where it will be.

    Yields:
        The folder beside it, empty.

    Raises:
        FileExistsError: there is something already. The message says so at the
            beginning.
        OSError: it cannot be made.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(
            f"there is something in {path}: delete it, or choose another"
            " folder."
        )
    unfinished = _beside(path)
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        os.replace(unfinished, path.resolve())
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def write(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a file, in UTF-8 if it is text; see `whole`."""
    with whole(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_array(path: pathlib.Path, array: np.ndarray) -> None:
    """Writes an array as `.npy`; see `whole`.

    Args:
        path: the file.
        array: of numbers.
    """
    # numpy's own way to write to a file does not say that the disk is full.
    array = np.ascontiguousarray(array)
    header = np.lib.format.header_data_from_array_1_0(array)
    with whole(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(array.data)


def write_figure(path: pathlib.Path, figure: "Figure", dpi: int = 150) -> None:
    """Draws a figure into a file, whose name says the format; see `whole`."""
    image = io.BytesIO()
    figure.savefig(image, dpi=dpi, format=path.suffix[1:])
    write(path, image.getvalue())


def read_json(
    path: pathlib.Path, what: str, parts: Sequence[str] = ()
) -> dict[str, Any]:
    """Reads an object of JSON.

    Args:
        path: the file.
        what: what it holds, to be part of a message.
        parts: the names of what has to be in it; these are objects as well.

    Returns:
        The object.

    Raises:
        InputError: it is no such object.
        OSError: the file cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(
        isinstance(found.get(part), dict) for part in parts
    ):
        raise InputError(
            f"{path} does not hold {what}: put it right, or move it away."
        )
    return found


def make_folder(out: pathlib.Path) -> None:
    """Makes the output folder if it is not there.

    Args:
        out: what the option `--out` says.

    Raises:
        OSError: nothing can be written there.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK | os.X_OK):
            raise PermissionError(0, "no files may be made in it")
    except OSError as error:
        raise OSError(
            f"--out {out}: it cannot be the output folder ({error.strerror})."
        ) from error


def _beside(path: pathlib.Path) -> pathlib.Path:
    # A link stays one, to a file that is new.
    real = path.resolve()
    return real.with_name(f"{real.name}.unfinished")
