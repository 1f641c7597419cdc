"""The standard augmentation of small images, in numpy."""

import numpy as np

__all__ = ["crop_and_flip"]


def crop_and_flip(
    images: np.ndarray, random: np.random.Generator, padding: int = 4
) -> np.ndarray:
    """Shifts each image by up to `padding` pixels, and mirrors half of them.

    What comes in at the edges is zero, the mean of standardized images.

    Args:
        images: of shape `(n, height, width, channels)`, any dtype.
        random: where shifts and reflections are drawn from.
        padding: the largest shift, in pixels, up or down, left or right.

    Returns:
        An array like images.

    Examples:
        >>> crop_and_flip(np.ones((2, 8, 8, 1)), np.random.default_rng(0)).shape
        (2, 8, 8, 1)

    References:
        He et al., `Deep Residual Learning for Image Recognition
        <https://arxiv.org/abs/1512.03385>`_, 2015, Section 4.2.
    """
    count, height, width, _ = images.shape
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(images, around)
    top, left = random.integers(0, 2 * padding + 1, (2, count, 1))
    rows = top + np.arange(height)
    columns = left + np.arange(width)
    mirrored = random.random(count) < 0.5
    columns[mirrored] = columns[mirrored, ::-1]
    each = np.arange(count)[:, None, None]
    return padded[each, rows[:, :, None], columns[:, None, :]]
