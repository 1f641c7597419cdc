"""CIFAR-10 and CIFAR-100 from their official binary files.

The folders `cifar-10-batches-bin` and `cifar-100-binary`, to which the archives
of the "binary version" unpack, are looked for in the folder that the
environment variable `PSI_OPTAX_DATA` names, or are that folder. Pickles are
never read. There is no checksum to go by: files that are cut short or mixed up
are noticed, and a changed label is, but not a changed pixel.
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from benchmarks import data_folder
from benchmarks.errors import InputError

__all__ = ["NAMES", "load_part", "read_records"]

SIDE, CHANNELS = 32, 3
_PIXELS = CHANNELS * SIDE * SIDE


class _Source(NamedTuple):
    """Where the files are, and what is in them.

    Attributes:
        folder: what the archive unpacks to.
        files: those of each part.
        records: the images of one file of each part.
        labels: the bytes in front of an image; the last one is the class.
        classes: number of classes.
    """

    folder: str
    files: Mapping[str, tuple[str, ...]]
    records: Mapping[str, int]
    labels: int
    classes: int


_SOURCES = {
    "cifar-10": _Source(
        "cifar-10-batches-bin",
        {
            "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
            "test": ("test_batch.bin",),
        },
        {"train": 10_000, "test": 10_000},
        labels=1,
        classes=10,
    ),
    "cifar-100": _Source(
        "cifar-100-binary",
        {"train": ("train.bin",), "test": ("test.bin",)},
        {"train": 50_000, "test": 10_000},
        labels=2,  # of 20 kinds, then of 100
        classes=100,
    ),
}

NAMES = tuple(_SOURCES)
"""The data sets that `load_part` knows."""


def load_part(name: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Load the training or the test part of a data set.

    All classes have as many images: that is checked, and finds files that were
    mixed up or damaged in their labels.

    Args:
        name: one of `NAMES`.
        part: `"train"` or `"test"`.

    Returns:
        Images of shape `(n, 32, 32, 3)` and labels of shape `(n,)`, both uint8.

    Raises:
        FileNotFoundError: if a file is missing. The message says how to get it.
        InputError: if a file is cut short, or damaged, or of another data set.
    """
    source = _SOURCES[name]
    parts = []
    for file in source.files[part]:
        path = _found(name, file)
        try:
            records = read_records(path.read_bytes(), source.labels)
        except InputError as error:
            raise InputError(f"{path}: {error}. {_advice(name)}") from None
        expected = source.records[part]
        if len(records[1]) != expected:
            raise InputError(
                f"{path} has {len(records[1])} images, and should have"
                f" {expected}: it is cut short, or another data set's."
                f" {_advice(name)}"
            )
        parts.append(records)
    images, labels = (np.concatenate(x) for x in zip(*parts, strict=True))
    counts = np.bincount(labels, minlength=source.classes)
    if np.any(counts != len(labels) / source.classes):
        raise InputError(
            f"{name}: the {part} files hold {counts.min()} to {counts.max()}"
            f" images of a class (numbers up to {labels.max()}), and should"
            f" hold as many of each of {source.classes}: they are damaged, or"
            f" mixed up. {_advice(name)}"
        )
    return images, labels


def read_records(raw: bytes, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Read records of labels and an image, its colours one after the other.

    Args:
        raw: contents of a file.
        labels: number of bytes in front of each image; the last one counts.

    Returns:
        Images of shape `(n, 32, 32, 3)` and labels of shape `(n,)`, both uint8.

    Raises:
        InputError: if the last record is incomplete, or there is none.

    Examples:
        >>> images, numbers = read_records(bytes([7]) + bytes(3072), labels=1)
        >>> images.shape, numbers
        ((1, 32, 32, 3), array([7], dtype=uint8))
    """
    length = labels + _PIXELS
    if not raw or len(raw) % length:
        raise InputError(
            f"{len(raw)} bytes are no whole number of records of {length}"
        )
    records = np.frombuffer(raw, np.uint8).reshape(-1, length)
    colours = records[:, labels:].reshape(-1, CHANNELS, SIDE, SIDE)
    return colours.transpose(0, 2, 3, 1), records[:, labels - 1]


def _found(name: str, file: str) -> pathlib.Path:
    for folder in _folders(name):
        if (folder / file).is_file():
            return folder / file
    raise FileNotFoundError(f"{name}: {file} is missing. {_advice(name)}")


def _folders(name: str) -> Iterator[pathlib.Path]:
    if given := data_folder.given():
        yield given / _SOURCES[name].folder
        yield given


def _advice(name: str) -> str:
    folder = _SOURCES[name].folder
    return (
        f"Get the binary version of {name.upper()} from"
        " https://www.cs.toronto.edu/~kriz/cifar.html, unpack it, and name the"
        f" folder that {folder} is in in {data_folder.VARIABLE}."
        f" {data_folder.remark()}"
    )
