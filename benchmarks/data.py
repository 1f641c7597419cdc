"""Real images: digits, MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100.

digits comes with scikit-learn; `benchmarks.idx_files` and
`benchmarks.cifar_files` say where the files of the others are looked for.
"""

from typing import NamedTuple

import numpy as np

from benchmarks import cifar_files, idx_files
from benchmarks.errors import InputError
from benchmarks.options import unknown

__all__ = ["NAMES", "Dataset", "hold_out", "load"]

DIGITS_SEED = 0
DIGITS_TEST_FRACTION = 1 / 3


class Dataset(NamedTuple):
    """Images and labels, split into a training and a test part.

    Attributes:
        name: name of the data set.
        train_images: float32, of shape `(n, height, width, channels)`; the
            pixels of each channel of the training part have mean 0 and
            standard deviation 1.
        train_labels: int32, of shape `(n,)`.
        test_images: float32, standardized as the training images are.
        test_labels: int32.
        num_classes: number of classes.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    num_classes: int


NAMES = ("digits", *idx_files.NAMES, *cifar_files.NAMES)
"""The data sets that `load` knows."""


def load(name: str = "digits") -> Dataset:
    """Load a data set.

    Args:
        name: one of `NAMES`.

    Returns:
        The data set, with its official split; digits has none, so a third of
        each class, drawn with a fixed seed, is the test part.

    Raises:
        InputError: if there is no data set of this name, or a file is damaged.
        FileNotFoundError: if a file or a package is missing. The message says
            how to get it.

    Examples:
        >>> digits = load("digits")
        >>> digits.train_images.shape, digits.test_images.shape
        ((1198, 8, 8, 1), (599, 8, 8, 1))
    """
    if name == "digits":
        train, test = _digits()
    elif name in idx_files.NAMES:
        train = idx_files.load_part(name, "train")
        test = idx_files.load_part(name, "t10k")
    elif name in cifar_files.NAMES:
        train = cifar_files.load_part(name, "train")
        test = cifar_files.load_part(name, "test")
    else:
        raise InputError(f"data sets: {unknown(name, NAMES)}.")
    images, tests = (x.reshape(*x.shape[:3], -1) for x in (train[0], test[0]))
    mean, std = images.mean((0, 1, 2)), images.std((0, 1, 2))
    if not std.all():
        raise InputError(
            f"{name}: all pixels of a channel are the same: the files are"
            " damaged."
        )
    return Dataset(
        name,
        _standardize(images, mean, std),
        train[1].astype(np.int32),
        _standardize(tests, mean, std),
        test[1].astype(np.int32),
        num_classes=int(train[1].max()) + 1,
    )


def hold_out(dataset: Dataset, fraction: float = 0.2, seed: int = 0) -> Dataset:
    """Replace the test part by a part of the training data.

    For choosing hyperparameters without a look at the test data.

    Args:
        dataset: a data set.
        fraction: share of each class that is held out.
        seed: which examples are held out.

    Returns:
        A data set whose training and test parts are both cut from the training
        part of `dataset`.

    Examples:
        >>> validation = hold_out(load("digits"))
        >>> len(validation.train_labels), len(validation.test_labels)
        (959, 239)
    """
    images, labels = dataset.train_images, dataset.train_labels
    kept, held = _stratified_split(labels, fraction, seed)
    return dataset._replace(
        train_images=images[kept],
        train_labels=labels[kept],
        test_images=images[held],
        test_labels=labels[held],
    )


def _digits() -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    # Here, because scikit-learn is slow to import and only digits needs it.
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


def _stratified_split(
    labels: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted indices of the rest and of a share of each class."""
    # RandomState, whose stream NumPy has frozen, so that the split never moves.
    random = np.random.RandomState(seed)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    held = np.concatenate(
        [
            random.permutation(indices)[: round(fraction * len(indices))]
            for indices in members
        ]
    )
    return np.setdiff1d(np.arange(len(labels)), held), np.sort(held)


def _standardize(
    images: np.ndarray, mean: np.ndarray, std: np.ndarray
) -> np.ndarray:
    # In place: a float32 copy of MNIST is 188 MB, of CIFAR-10 614 MB.
    out = images.astype(np.float32)
    out -= mean.astype(np.float32)
    out /= std.astype(np.float32)
    return out
