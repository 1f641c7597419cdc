"""Files that are complete or absent, and errors that say which file it was.

Content goes to a file or folder beside, named `*.unfinished`, which is renamed
once all of it is on the disk. If the disk is full, or the program is stopped,
the earlier file remains. A crash may leave `*.unfinished`, which is replaced by
the next writing.
"""

import contextlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class InputError(ValueError):
    """A file or a name that cannot be used; the message says which."""


@contextlib.contextmanager
def one_message() -> Iterator[None]:
    """End the program with one line where files, names or processes fail.

    Other errors are faults of the program, and keep their traceback.

    Examples:
        >>> try:
        ...     with one_message():
        ...         open("/no such file")
        ... except SystemExit as end:
        ...     print(end.code)
        1
    """
    try:
        yield
    except (OSError, InputError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)


@contextlib.contextmanager
def named(path: pathlib.Path) -> Iterator[None]:
    """Add the path to errors inside: those of a full disk lack it."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise OSError(error.errno, why, str(path)) from error


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """Open a file that replaces the one at its path once it is complete.

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
            # A rename may reach the disk before the content does.
            os.fsync(file.fileno())
        with named(path):
            os.replace(unfinished, path.resolve())
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


@contextlib.contextmanager
def whole_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Make an empty folder that moves to its path once it is complete."""
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
    """Write a file, in UTF-8 if it is text; see `whole`."""
    with whole(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_array(path: pathlib.Path, array: np.ndarray) -> None:
    """Write an array of numbers as `.npy`; see `whole`."""
    # np.save does not say that the disk is full.
    array = np.ascontiguousarray(array)
    header = np.lib.format.header_data_from_array_1_0(array)
    with whole(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(array.data)


def write_figure(path: pathlib.Path, figure: "Figure", dpi: int = 192) -> None:
    """Draw a figure in the format of the file's name; see `whole`."""
    file = io.BytesIO()
    figure.savefig(file, dpi=dpi, format=path.suffix[1:])
    image = file.getvalue()
    write(path, with_palette(image) if path.suffix == ".png" else image)


def with_palette(image: bytes) -> bytes:
    """Return a PNG with a palette of 256 colours, a third as large."""
    from PIL import Image  # matplotlib needs it

    found = io.BytesIO()
    few = Image.open(io.BytesIO(image)).convert("RGB").quantize(256)
    few.save(found, "PNG", optimize=True)
    return found.getvalue()


def read_json(
    path: pathlib.Path, what: str, parts: Sequence[str] = ()
) -> dict[str, Any]:
    """Read an object of JSON, called `what` in errors, with these parts."""
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
    """Make the output folder `--out`, and check that it can be written to."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK | os.X_OK):
            raise PermissionError(0, "no files may be made in it")
    except OSError as error:
        raise OSError(
            f"--out {out}: it cannot be the output folder ({error.strerror})."
        ) from error


def _beside(path: pathlib.Path) -> pathlib.Path:
    # A link is kept, and its target replaced.
    real = path.resolve()
    return real.with_name(f"{real.name}.unfinished")
