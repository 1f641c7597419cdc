"""Large images, such as ImageNet's, as arrays of bytes on disk.

    python -m benchmarks.data.images IMAGENET OUT --side 256

makes the arrays out of folders of pictures. In `train` and in `test` OUT holds

- `images-*.npy`: uint8, of shape `(n, side, side, 3)`;
- `labels-*.npy`: integers from 0, of shape `(n,)`, one file for each of images.

They are searched in `$PSI_OPTAX_DATA/imagenet` and memory-mapped: there may be
more images than memory. A changed pixel, or a label changed to another class,
is not noticed.
"""

import pathlib
from collections.abc import Sequence

import jax
import numpy as np
import tyro

from benchmarks.data import folder
from benchmarks.data.dataset import Dataset
from benchmarks.harness import files
from benchmarks.harness.files import InputError, one_message
from benchmarks.harness.options import Count

NAME = "imagenet"

# Of ImageNet's training images, with bytes scaled to [0, 1].
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

PER_FILE = 10_000

_PARTS = {"train": "train", "val": "test"}


class Images:
    """Arrays of images of one shape, concatenated without a copy.

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
        """Gather the images of these numbers, of shape `(len(rows), ...)`."""
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        numbers = np.searchsorted(self.starts, rows, side="right") - 1
        places = rows - self.starts[numbers]
        for out, number, place in zip(
            found, numbers.tolist(), places.tolist(), strict=True
        ):
            out[:] = self.arrays[number][place]
        return found


def load() -> Dataset:
    """Open the arrays: a data set whose images are `Images` of bytes."""
    root = (folder.given() or pathlib.Path()) / NAME
    train, test = (_load_part(root / part) for part in ("train", "test"))
    if train[0].shape[1:] != test[0].shape[1:]:
        raise InputError(
            f"{root}: images of shape {train[0].shape[1:]} for training and"
            f" {test[0].shape[1:]} for testing: make both of one --side."
        )
    classes = int(train[1].max()) + 1
    if len(np.unique(train[1])) < classes or test[1].max() >= classes:
        raise InputError(
            f"{root}: labels up to {classes - 1} in train, and up to"
            f" {test[1].max()} in test: train needs all numbers from 0, and"
            " test no others. A label is damaged, or files are missing."
        )
    return Dataset(NAME, *train, *test, num_classes=classes)  # pyrefly: ignore


def standardize(images: jax.Array) -> jax.Array:
    """Standardize bytes to float32; return other types as they are."""
    if images.dtype != np.uint8:
        return images
    mean, std = (
        np.array(x, np.float32).reshape(1, 1, 1, 3) * np.float32(255)
        for x in (MEAN, STD)
    )
    return (images.astype(np.float32) - mean) / std


def _load_part(part: pathlib.Path) -> tuple[Images, np.ndarray]:
    found = sorted(part.glob("images-*.npy"))
    if not found:
        raise FileNotFoundError(
            f"{NAME}: there is no {part / 'images-*.npy'}. Make arrays of the"
            f" pictures by `python -m benchmarks.data.images IMAGENET {NAME}`,"
            f" and name the folder that contains {NAME} in {folder.VARIABLE}."
            f" {folder.remark()}"
        )
    beside = [x.with_name(x.name.replace("images", "labels", 1)) for x in found]
    if alone := sorted({*part.glob("labels-*.npy")} - {*beside}):
        raise InputError(f"{alone[0]}: there are no images to these labels.")
    images = [_open(file) for file in found]
    labels = [np.array(_open(file)) for file in beside]
    for file, x, y in zip(found, images, labels, strict=True):
        if not _belong_together(x, y) or x.shape[1:] != images[0].shape[1:]:
            raise InputError(
                f"{file}: {x.dtype} of shape {x.shape}, with labels {y.dtype}"
                f" of shape {y.shape}: images are uint8 of shape (n, side,"
                " side, 3), of one side in all files, n at least 1, and labels"
                " n integers from 0."
            )
    return Images(images), np.concatenate(labels).astype(np.int32)


def _belong_together(images: np.ndarray, labels: np.ndarray) -> bool:
    return (
        (images.dtype, images.ndim) == (np.uint8, 4)
        and labels.shape == images.shape[:1] != (0,)
        and np.issubdtype(labels.dtype, np.integer)
        and 0 <= labels.min() <= labels.max() < 2**31
    )


def _open(file: pathlib.Path) -> np.ndarray:
    # Not np.load, which opens archives as well. This reads nothing of a pickle.
    try:
        array = np.lib.format.open_memmap(file, mode="r")
    # Numpy raises errors of many kinds.
    except Exception as error:
        raise InputError(
            f"{file} is missing or damaged ({error}): make it anew."
        ) from error
    if more := file.stat().st_size - array.offset - array.nbytes:
        raise InputError(
            f"{file} is damaged ({more} bytes more than its header says): make"
            " it anew."
        )
    return array


def write(
    source: tyro.conf.Positional[pathlib.Path],
    out: tyro.conf.Positional[pathlib.Path],
    side: Count = 256,
) -> None:
    """Make arrays of bytes out of folders of pictures.

    Each picture is shrunk until its shorter side fits, and its middle is kept.
    The arrays appear once all of them are written.

    Args:
        source: a folder with `train/<class>/*` and `val/<class>/*`.
        out: the folder of the arrays, new or empty.
        side: height and width of the images, in pixels.
    """
    if not source.is_dir():
        raise InputError(f"{source}: there is no such folder.")
    with files.whole_folder(out) as unfinished:
        for part, pictures in _pictures(source).items():
            _write_part(unfinished / _PARTS[part], pictures, side)


def _pictures(source: pathlib.Path) -> dict[str, list]:
    """List the files of each part, each with the number of its class."""
    train, val = (
        sorted(x.name for x in (source / part).glob("*") if x.is_dir())
        for part in _PARTS
    )
    if not train or train != val:
        raise InputError(
            f"{source}: train has {len(train)} folders of classes, and val"
            f" {len(val)}: they have to be the same."
        )
    found = {
        part: [
            (path, label)
            for label, name in enumerate(train)
            for path in sorted((source / part / name).iterdir())
        ]
        for part in _PARTS
    }
    if empty := [part for part in _PARTS if not found[part]]:
        raise InputError(f"{source / empty[0]}: there are no pictures.")
    return found


def _write_part(out: pathlib.Path, pictures: list, side: int) -> None:
    out.mkdir()
    for number, first in enumerate(range(0, len(pictures), PER_FILE)):
        some = pictures[first : first + PER_FILE]
        images = np.stack([_read_picture(path, side) for path, _ in some])
        labels = np.array([label for _, label in some], np.int32)
        files.write_array(out / f"images-{number:05}.npy", images)
        files.write_array(out / f"labels-{number:05}.npy", labels)


def _read_picture(path: pathlib.Path, side: int) -> np.ndarray:
    # Imported here: only this needs it; matplotlib depends on it.
    from PIL import Image, ImageOps

    size, method = (side, side), Image.Resampling.BICUBIC
    try:
        with Image.open(path) as picture:
            return np.asarray(
                ImageOps.fit(picture.convert("RGB"), size, method)
            )
    # Its formats raise errors of many kinds.
    except Exception as error:
        raise InputError(
            f"{path} cannot be read as a picture ({error})."
        ) from error


@one_message()
def main(argv: Sequence[str] | None = None) -> None:
    """Run `write` from the command line."""
    tyro.cli(write, prog="python -m benchmarks.data.images", args=argv)


if __name__ == "__main__":
    main()
