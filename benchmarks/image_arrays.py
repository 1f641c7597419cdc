"""Large images, such as ImageNet's, from arrays on disk.

    python -m benchmarks.image_arrays IMAGENET OUT --side 256

makes the arrays out of folders of pictures, `IMAGENET/train/<class>/*` and
`IMAGENET/val/<class>/*`: every picture is shrunk until its shorter side has 256
pixels, and the middle of it kept. OUT then holds, in `train` and in `test`,

- `images-*.npy`: uint8, of shape `(n, side, side, 3)`;
- `labels-*.npy`: integers from 0, of shape `(n,)`, one file for each of images.

They are looked for in the subfolder `imagenet` of the folder that the
environment variable `PSI_OPTAX_DATA` names. Images stay on disk until they are
needed (memory-mapped), so that there may be more of them than memory. OUT is
there when all of it is written, and not before. Nothing is noticed of a changed
pixel, or of a label that is changed to another class.
"""

import argparse
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import data_folder, files
from benchmarks.data import Dataset
from benchmarks.errors import InputError, one_message
from benchmarks.options import at_least

__all__ = ["NAME", "Images", "load", "standardize", "write"]

NAME = "imagenet"

# Of ImageNet's training images, whose bytes are taken from 0 to 1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

PER_FILE = 10_000

_PARTS = {"train": "train", "val": "test"}


class Images:
    """Arrays of images one after the other, without joining them in memory.

    Attributes:
        shape: `(n, height, width, channels)`.
        dtype: uint8.

    Args:
        arrays: each of shape `(n, height, width, channels)`; the images of all
            have one shape.

    Examples:
        >>> images = Images([np.zeros((2, 4, 4, 3), np.uint8)] * 3)
        >>> images.shape, images[np.array([5, 0])].shape
        ((6, 4, 4, 3), (2, 4, 4, 3))
    """

    def __init__(self, arrays: Sequence[np.ndarray]):
        self.arrays = arrays
        self.starts = np.cumsum([0, *map(len, arrays)])
        self.shape = (int(self.starts[-1]), *arrays[0].shape[1:])
        self.dtype = arrays[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The images of these numbers, of shape `(len(rows), ...)`."""
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        files = np.searchsorted(self.starts, rows, side="right") - 1
        places = rows - self.starts[files]
        for out, file, place in zip(
            found, files.tolist(), places.tolist(), strict=True
        ):
            out[:] = self.arrays[file][place]
        return found


def load() -> Dataset:
    """Open the arrays.

    Returns:
        A data set whose images are `Images`, bytes as they are on disk, and
        whose labels are int32.

    Raises:
        FileNotFoundError: there are none. The message says how to make them.
        InputError: files that do not belong together, or are damaged.
    """
    folder = (data_folder.given() or pathlib.Path()) / NAME
    train, test = (_part(folder / part) for part in ("train", "test"))
    if train[0].shape[1:] != test[0].shape[1:]:
        raise InputError(
            f"{folder}: images of shape {train[0].shape[1:]} for training and"
            f" {test[0].shape[1:]} for testing: make both of one --side."
        )
    classes = int(train[1].max()) + 1
    if len(np.unique(train[1])) < classes:
        raise InputError(
            f"{folder}: labels up to {classes - 1} in train, but not all of"
            " the numbers below: a label is damaged, or files are missing."
        )
    if test[1].max() >= classes:
        raise InputError(
            f"{folder}: labels up to {test[1].max()} in test, but up to"
            f" {classes - 1} in train: number both by the same classes."
        )
    return Dataset(NAME, *train, *test, num_classes=classes)  # pyrefly: ignore


def standardize(images: jax.Array) -> jax.Array:
    """Bytes as float32, about 0 and of size 1; anything else as it is.

    Examples:
        >>> import jax.numpy as jnp
        >>> white = standardize(jnp.full((1, 1, 1, 3), 255, jnp.uint8))
        >>> [f"{x:.2f}" for x in white.ravel()]
        ['2.25', '2.43', '2.64']
    """
    if images.dtype != np.uint8:
        return images
    mean, std = (
        np.array(x, np.float32).reshape(1, 1, 1, 3) * np.float32(255)
        for x in (MEAN, STD)
    )
    return (images.astype(np.float32) - mean) / std


def _part(folder: pathlib.Path) -> tuple[Images, np.ndarray]:
    found = sorted(folder.glob("images-*.npy"))
    if not found:
        raise FileNotFoundError(
            f"{NAME}: there is no {folder / 'images-*.npy'}. Make arrays of"
            f" the pictures by `python -m benchmarks.image_arrays IMAGENET"
            f" {NAME}`, and name the folder that {NAME} is in in"
            f" {data_folder.VARIABLE}. {data_folder.remark()}"
        )
    beside = [
        file.with_name(file.name.replace("images", "labels", 1))
        for file in found
    ]
    if alone := sorted({*folder.glob("labels-*.npy")} - {*beside}):
        raise InputError(f"{alone[0]}: there are no images to these labels.")
    images, labels = [], []
    for file, numbers in zip(found, beside, strict=True):
        images.append(_array(file))
        labels.append(np.array(_array(numbers)))
        shape, dtype = images[-1].shape, images[-1].dtype
        if (
            dtype != np.uint8
            or len(shape) != 4
            or shape[1:] != images[0].shape[1:]
            or labels[-1].shape != shape[:1]
            or not np.issubdtype(labels[-1].dtype, np.integer)
            or not len(labels[-1])
            or not 0 <= labels[-1].min() <= labels[-1].max() < 2**31
        ):
            raise InputError(
                f"{file}: {dtype} of shape {shape}, with labels"
                f" {labels[-1].dtype} of shape {labels[-1].shape}: images are"
                " uint8 of shape (n, side, side, 3), of one side in all files,"
                " n at least 1, and labels n integers from 0."
            )
    return Images(images), np.concatenate(labels).astype(np.int32)


def _array(file: pathlib.Path) -> np.ndarray:
    # Not np.load, which takes archives as well. Of a pickle this reads nothing.
    try:
        array = np.lib.format.open_memmap(file, mode="r")
    # Numpy has no error of its own for this: it raises many.
    except Exception as error:
        raise InputError(
            f"{file} is missing or damaged ({error}): make it anew."
        ) from error
    more = file.stat().st_size - array.offset - array.nbytes
    if more:
        raise InputError(
            f"{file} is damaged ({more} bytes more than its header says): make"
            " it anew."
        )
    return array


def write(source: pathlib.Path, out: pathlib.Path, side: int) -> None:
    """Makes the arrays out of folders of pictures.

    Args:
        source: a folder with `train/<class>/*` and `val/<class>/*`.
        out: where the arrays go: a folder that is not there, or empty.
        side: height and width of the images, in pixels.

    Raises:
        InputError: there is no such folder; there are no classes, or others
            for training and testing, or no pictures; one cannot be read.
        OSError: the arrays cannot be written. Then nothing is left of them.
    """
    if not source.is_dir():
        raise InputError(f"{source}: there is no such folder.")
    with files.whole_folder(out) as unfinished:
        _write(source, unfinished, side)


def _write(source: pathlib.Path, out: pathlib.Path, side: int) -> None:
    classes = {
        part: sorted(p.name for p in (source / part).glob("*") if p.is_dir())
        for part in _PARTS
    }
    if not classes["train"] or classes["train"] != classes["val"]:
        raise InputError(
            f"{source}: train has {len(classes['train'])} folders of classes,"
            f" and val {len(classes['val'])}: they have to be the same."
        )
    for part, name in _PARTS.items():
        pictures = [
            (path, label)
            for label, folder in enumerate(classes[part])
            for path in sorted((source / part / folder).iterdir())
        ]
        if not pictures:
            raise InputError(f"{source / part}: there are no pictures.")
        (out / name).mkdir()
        for number, some in enumerate(_pieces(pictures)):
            images = np.stack([_picture(path, side) for path, _ in some])
            labels = np.array([label for _, label in some], np.int32)
            files.write_array(out / name / f"images-{number:05}.npy", images)
            files.write_array(out / name / f"labels-{number:05}.npy", labels)


def _pieces(items: list[Any]) -> Iterator[list[Any]]:
    for first in range(0, len(items), PER_FILE):
        yield items[first : first + PER_FILE]


def _picture(path: pathlib.Path, side: int) -> np.ndarray:
    # Here, because only this needs it; matplotlib brings it along.
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            square = ImageOps.fit(
                picture.convert("RGB"), (side, side), Image.Resampling.BICUBIC
            )
    # Its formats raise errors of many kinds.
    except Exception as error:
        raise InputError(
            f"{path} cannot be read as a picture ({error})."
        ) from error
    return np.asarray(square)


def main(argv: Sequence[str] | None = None) -> None:
    """Makes arrays out of pictures."""
    about = "default: %(default)s pixels"
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--side", type=at_least(1), default=256, help=about)
    given = parser.parse_args(argv)
    with one_message():
        write(given.source, given.out, given.side)


if __name__ == "__main__":
    main()
