"""Batches on their devices, made in another thread while a step computes."""

import collections
import concurrent.futures
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np

from benchmarks.data import Dataset, augmentation
from benchmarks.train.layout import Layout
from benchmarks.train.settings import Settings

T = TypeVar("T")

Batches = Iterator[tuple[jax.Array, ...]]

# Zeros around small images, out of which pieces are cut: usual for CIFAR.
PADDING = 4

TEST_BATCH = 1000


def image_shape(settings: Settings, dataset: Dataset) -> tuple[int, ...]:
    """Return the shape of an image as the network sees it."""
    *size, channels = dataset.train_images.shape[1:]
    if settings.crop is not None:
        size = [settings.crop] * 2
    return (*size, channels)


def check(settings: Settings, dataset: Dataset, parts: int) -> None:
    """Raise a ValueError if no batches can be made of the data."""
    batch, crop = settings.batch, settings.crop or 0
    count = len(dataset.train_labels)
    side = min(dataset.train_images.shape[1:3] + dataset.test_images.shape[1:3])
    for message, wrong in {
        f"batch {batch}: {parts} devices have to divide it": batch % parts,
        f"batch {batch}: there are {count} images": batch > count,
        f"crop {crop}: images are of {side} pixels": crop > side,
    }.items():
        if wrong:
            raise ValueError(f"--{message}, for --data {dataset.name}.")


def train_batches(
    settings: Settings, dataset: Dataset, layout: Layout, epoch: int
) -> Batches:
    """Yield images and labels, drawn by the seed and the epoch alone."""
    random = np.random.default_rng([settings.seed, epoch])
    count, size = len(dataset.train_labels), settings.batch
    # An incomplete last batch is dropped.
    order = random.permutation(count)[: count // size * size]
    shape = image_shape(settings, dataset)
    padding = PADDING if settings.augment and settings.crop is None else 0
    room = _room(dataset.train_images, shape, padding)
    for rows in order.reshape(-1, size):
        cuts = augmentation.central_cuts(size, room)
        if settings.augment:
            cuts = augmentation.draw_cuts(size, room, random)
        images = _pieces(dataset.train_images, rows, cuts, shape, padding)
        labels = dataset.train_labels[rows].__getitem__
        yield layout.put((size, *shape), images), layout.put((size,), labels)


def test_batches(
    settings: Settings, dataset: Dataset, layout: Layout
) -> Batches:
    """Yield images, labels and weights: 0 for what fills the last batch up."""
    count, parts = len(dataset.test_labels), layout.parts
    size = -(-min(TEST_BATCH, count) // parts) * parts
    shape = image_shape(settings, dataset)
    cuts = augmentation.central_cuts(size, _room(dataset.test_images, shape))
    for first in range(0, count, size):
        rows = np.arange(first, first + size)
        weights = (rows < count).astype(np.float32)
        rows = np.minimum(rows, count - 1)
        images = _pieces(dataset.test_images, rows, cuts, shape)
        labels = dataset.test_labels[rows]
        numbers = (
            layout.put((size,), x.__getitem__) for x in (labels, weights)
        )
        yield layout.put((size, *shape), images), *numbers


def ahead(batches: Iterable[T], count: int = 2) -> Iterator[T]:
    """Yield the same batches, of which another thread makes the next ones."""
    source = iter(batches)
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        waiting = collections.deque(
            thread.submit(next, source, None) for _ in range(count)
        )
        while (batch := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(next, source, None))
            yield batch


def _room(images: Any, shape, padding: int = 0) -> tuple[int, int]:
    """Return by how much images are higher and wider than pieces."""
    height, width = images.shape[1:3]
    return height + 2 * padding - shape[0], width + 2 * padding - shape[1]


def _pieces(images: Any, rows, cuts, shape, padding: int = 0):
    """Return what loads a slice of a batch: pieces of these images."""

    def load(part: slice) -> np.ndarray:
        found = images[rows[part]]
        if padding:
            found = augmentation.pad(found, padding)
        if found.shape[1:] == shape and not cuts.any():
            return found
        return augmentation.cut(found, cuts[part], shape[:2])

    return load
