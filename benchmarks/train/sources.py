"""The data that can be trained on, by name."""

from benchmarks import data
from benchmarks.data import Dataset, images as image_arrays

__all__ = ["NAMES", "load"]

NAMES = (*data.NAMES, image_arrays.NAME)
"""The data sets that `load` knows."""


def load(name: str) -> Dataset:
    """Load a data set.

    Args:
        name: one of `NAMES`.

    Returns:
        The data set: small images as `benchmarks.data.load` returns them, large
        ones as `benchmarks.data.images.load` does.

    Raises:
        FileNotFoundError: a file is missing. The message says how to get it.
        ValueError: a file is damaged.
    """
    if name == image_arrays.NAME:
        return image_arrays.load()
    return data.load(name)
