"""The input: batches on their devices, made while a step computes."""

import collections
import concurrent.futures
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np

from benchmarks.data import Dataset, augmentation
from benchmarks.train.layout import Layout
from benchmarks.train.settings import Settings

__all__ = ["ahead", "image_shape", "test_batches", "train_batches"]

T = TypeVar("T")

Batch = tuple[jax.Array, ...]

# Of small images, where nothing is cut off: usual for CIFAR.
PADDING = 4

TEST_BATCH = 1000


def image_shape(settings: Settings, dataset: Dataset) -> tuple[int, ...]:
    """The shape of an image as the network sees it."""
    *size, channels = dataset.train_images.shape[1:]
    if settings.crop is not None:
        size = [settings.crop] * 2
    return (*size, channels)


def train_batches(
    settings: Settings, dataset: Dataset, layout: Layout, epoch: int
) -> Iterator[Batch]:
    """The batches of an epoch: images and labels.

    Order and augmentation depend on the seed and on the number of the epoch
    alone, not on the layout or on what was drawn before.

    Args:
        settings: what to do with the images.
        dataset: the training part is used; an incomplete last batch is dropped.
        layout: where they go.
        epoch: its number.

    Yields:
        Images and labels, on their devices.
    """
    random = np.random.default_rng([settings.seed, epoch])
    count, size = len(dataset.train_labels), settings.batch
    order = random.permutation(count)[: count // size * size]
    shape = image_shape(settings, dataset)
    padding = PADDING if settings.augment and settings.crop is None else 0
    room = _room(dataset.train_images, shape, padding)
    for batch in order.reshape(-1, size):
        cuts = augmentation.central_cuts(size, room)
        if settings.augment:
            cuts = augmentation.draw_cuts(size, room, random)
        yield _put(
            layout,
            size,
            _images(dataset.train_images, batch, cuts, shape, padding),
            lambda part, batch=batch: dataset.train_labels[batch[part]],
        )


def test_batches(
    settings: Settings, dataset: Dataset, layout: Layout
) -> Iterator[Batch]:
    """The test part: images, labels and weights.

    The last batch is filled up with examples of weight 0, so that all batches
    are of one size that can be divided among the devices.

    Args:
        settings: what to do with the images.
        dataset: the test part is used.
        layout: where they go.

    Yields:
        Images, labels and weights, on their devices.
    """
    count, parts = len(dataset.test_labels), layout.parts
    size = -(-min(TEST_BATCH, count) // parts) * parts
    shape = image_shape(settings, dataset)
    cuts = augmentation.central_cuts(size, _room(dataset.test_images, shape))
    for first in range(0, count, size):
        rows = np.arange(first, first + size)
        weights = (rows < count).astype(np.float32)
        rows = np.minimum(rows, count - 1)
        yield _put(
            layout,
            size,
            _images(dataset.test_images, rows, cuts, shape, 0),
            lambda part, rows=rows: dataset.test_labels[rows[part]],
            lambda part, weights=weights: weights[part],
        )


def ahead(batches: Iterable[T], count: int = 2) -> Iterator[T]:
    """The same batches, the next ones of which are made in another thread.

    Args:
        batches: whatever is to be iterated over; none of them is None.
        count: how many are made ahead of their use.

    Yields:
        What the batches are.

    Examples:
        >>> list(ahead(range(3)))
        [0, 1, 2]
    """
    source = iter(batches)
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        waiting = collections.deque(
            thread.submit(next, source, None) for _ in range(count)
        )
        while (batch := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(next, source, None))
            yield batch


def _room(images: Any, shape, padding: int = 0) -> tuple[int, int]:
    """By how much images are higher and wider than pieces of a shape."""
    high, wide = (
        stored + 2 * padding - kept
        for stored, kept in zip(images.shape[1:3], shape[:2], strict=True)
    )
    return high, wide


def _images(images: Any, rows, cuts, shape, padding):
    """What loads a part of a batch: pieces of images."""

    def load(part: slice) -> np.ndarray:
        found = images[rows[part]]
        if padding:
            found = augmentation.pad(found, padding)
        if found.shape[1:] == shape and not cuts.any():
            return found
        return augmentation.cut(found, cuts[part], shape[:2])

    return load


def _put(layout: Layout, size: int, *loads) -> Batch:
    return tuple(layout.put(size, load) for load in loads)
