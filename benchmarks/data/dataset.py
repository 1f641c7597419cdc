"""Small data sets, in memory: loaded by name, standardized and split."""

from typing import NamedTuple

import numpy as np

from benchmarks.data import cifar, idx
from benchmarks.harness.files import InputError
from benchmarks.harness.names import unknown

DIGITS_SEED = 0
DIGITS_TEST_FRACTION = 1 / 3

_Pair = tuple[np.ndarray, np.ndarray]


class Dataset(NamedTuple):
    """Images and labels, split into a training and a test part.

    Images are float32, of shape `(n, height, width, channels)`. In the training
    part each channel has mean 0 and standard deviation 1. Labels are int32.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    num_classes: int


NAMES = ("digits", *idx.NAMES, *cifar.NAMES)
"""The data sets that `load` knows."""


def load(name: str = "digits") -> Dataset:
    """Load a data set with its official split; digits has one of ours.

    Examples:
        >>> digits = load("digits")
        >>> digits.train_images.shape, digits.test_images.shape
        ((1198, 8, 8, 1), (599, 8, 8, 1))
    """
    parts = [
        (images.reshape(*images.shape[:3], -1), labels.astype(np.int32))
        for images, labels in _read(name)
    ]
    (images, labels), _ = parts
    mean, std = images.mean((0, 1, 2)), images.std((0, 1, 2))
    if not std.all():
        raise InputError(
            f"{name}: all pixels of a channel are the same: the files are"
            " damaged."
        )
    train, test = ((_standardize(x, mean, std), y) for x, y in parts)
    return Dataset(name, *train, *test, num_classes=int(labels.max()) + 1)


def hold_out(dataset: Dataset, fraction: float = 0.2, seed: int = 0) -> Dataset:
    """Replace the test part by a share of each class of the training part."""
    images, labels = dataset.train_images, dataset.train_labels
    kept, held = _stratified_split(labels, fraction, seed)
    return dataset._replace(
        train_images=images[kept],
        train_labels=labels[kept],
        test_images=images[held],
        test_labels=labels[held],
    )


def _read(name: str) -> tuple[_Pair, _Pair]:
    """Return images and labels of both parts as they are stored."""
    if name == "digits":
        return _digits()
    if name in idx.NAMES:
        return idx.load_part(name, "train"), idx.load_part(name, "t10k")
    if name in cifar.NAMES:
        return cifar.load_part(name, "train"), cifar.load_part(name, "test")
    raise InputError(f"data sets: {unknown(name, NAMES)}.")


def _digits() -> tuple[_Pair, _Pair]:
    # Imported here: scikit-learn is slow to import, and only digits needs it.
    try:
        from sklearn import datasets
    except ImportError as error:
        raise FileNotFoundError(
            "digits comes with scikit-learn, which cannot be imported"
            f" ({error}): pip install scikit-learn"
        ) from error

    images, labels = map(np.asarray, datasets.load_digits(return_X_y=True))
    images = images.reshape(-1, 8, 8)
    train, test = _stratified_split(labels, DIGITS_TEST_FRACTION, DIGITS_SEED)
    return (images[train], labels[train]), (images[test], labels[test])


def _stratified_split(labels: np.ndarray, fraction: float, seed: int) -> _Pair:
    """Return the sorted indices of the rest and of a share of each class."""
    # NumPy has frozen the stream of RandomState: the split never moves.
    random = np.random.RandomState(seed)
    is_held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        is_held[members[: round(fraction * len(members))]] = True
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def _standardize(images, mean, std):
    # In place: a float32 copy of MNIST is 188 MB, of CIFAR-10 614 MB.
    out = images.astype(np.float32)
    out -= mean.astype(np.float32)
    out /= std.astype(np.float32)
    return out
