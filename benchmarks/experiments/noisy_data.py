"""Data sets of fewer and smaller images, a share of them with wrong labels."""

import numpy as np

from benchmarks import data
from benchmarks.data import Dataset

SPLIT_SEED, NOISE_SEED = 0, 1


def split(
    name: str, train: int, validation: int, pool: int, noise: float
) -> tuple[Dataset, Dataset]:
    """Draw a training part, with a validation part and with the test part.

    Each pixel is the mean of a square of `pool` x `pool`. A share of the labels
    of both drawn parts is wrong, those of the test part are right.

    Examples:
        >>> tuning, final = split("digits", 500, 200, pool=2, noise=0.3)
        >>> tuning.test_images.shape, final.test_images.shape
        ((200, 4, 4, 1), (599, 4, 4, 1))
    """
    full = data.load(name)
    labels = flip_labels(full.train_labels, noise, full.num_classes)
    random = np.random.RandomState(SPLIT_SEED)
    order = random.permutation(len(labels))
    kept, held = order[:train], order[train : train + validation]
    final = full._replace(
        train_images=_pool(full.train_images[kept], pool),
        train_labels=labels[kept],
        test_images=_pool(full.test_images, pool),
    )
    tuning = final._replace(
        test_images=_pool(full.train_images[held], pool),
        test_labels=labels[held],
    )
    return tuning, final


def first(dataset: Dataset, count: int) -> Dataset:
    """Return a data set with the first of its training images only."""
    return dataset._replace(
        train_images=dataset.train_images[:count],
        train_labels=dataset.train_labels[:count],
    )


def flip_labels(labels: np.ndarray, share: float, classes: int) -> np.ndarray:
    """Replace a share of the labels, each by one of the other classes."""
    random = np.random.RandomState(NOISE_SEED)
    wrong = random.permutation(len(labels))[: round(share * len(labels))]
    offsets = random.randint(1, classes, len(wrong))
    flipped = labels.copy()
    flipped[wrong] = (flipped[wrong] + offsets) % classes
    return flipped


def _pool(images: np.ndarray, size: int) -> np.ndarray:
    """Return the means of squares of pixels."""
    count, height, width, channels = images.shape
    squares = images.reshape(
        count, height // size, size, width // size, size, channels
    )
    return squares.mean((2, 4))
