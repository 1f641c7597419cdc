"""CIFAR-10 and CIFAR-100, from the files of their "binary version".

There are no published checksums of these files. Their lengths and the number of
images of each class are checked: a changed pixel is not noticed. Pickles are
never read.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from benchmarks.data import folder
from benchmarks.harness.files import InputError

SIDE, CHANNELS = 32, 3


class _Source(NamedTuple):
    """The files of a data set, and their contents."""

    folder: str
    files: Mapping[str, tuple[str, ...]]  # of each part
    records: Mapping[str, int]  # in one file of each part
    labels: int  # bytes before an image; the last one is the class
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
        labels=2,  # one of 20 superclasses, then one of 100 classes
        classes=100,
    ),
}

NAMES = tuple(_SOURCES)
"""The data sets that `load_part` knows."""


def load_part(name: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 images and labels of the part `"train"` or `"test"`."""
    source = _SOURCES[name]
    advice = (
        f"Get the binary version of {name.upper()} from"
        " https://www.cs.toronto.edu/~kriz/cifar.html, unpack it, and name the"
        f" folder that contains {source.folder}"
    )
    length, count = source.labels + CHANNELS * SIDE**2, source.records[part]

    def decode(raw: bytes) -> np.ndarray:
        if len(raw) != count * length:
            raise InputError(
                f"{len(raw)} bytes, and should have {count} records of {length}"
            )
        return np.frombuffer(raw, np.uint8).reshape(count, length)

    places = folder.places(source.folder)
    records = np.concatenate(
        [
            folder.first_sound(
                f"{name}: {file}", [x / file for x in places], decode, advice
            )
            for file in source.files[part]
        ]
    )
    labels = records[:, source.labels - 1]
    counts = np.bincount(labels, minlength=source.classes)
    if np.any(counts != len(labels) / source.classes):
        raise InputError(
            f"{name}: the {part} files hold {counts.min()} to {counts.max()}"
            f" images of a class (numbers up to {labels.max()}), and should"
            f" hold as many of each of {source.classes}: they are damaged, or"
            f" mixed up. {advice} in {folder.VARIABLE}."
        )
    channels = records[:, source.labels :].reshape(-1, CHANNELS, SIDE, SIDE)
    return channels.transpose(0, 2, 3, 1), labels
