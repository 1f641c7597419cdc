"""The standard augmentation of images: random crops and reflections, in numpy.

A cut is the first row and column of a piece, and 1 to mirror it, or 0. See
He et al., Deep Residual Learning for Image Recognition, 2015, Section 4.2.
"""

from collections.abc import Sequence

import numpy as np


def draw_cuts(
    count: int, room: tuple[int, int], random: np.random.Generator
) -> np.ndarray:
    """Draw cuts; `room` is height and width of images less those of pieces."""
    return random.integers(0, (room[0] + 1, room[1] + 1, 2), (count, 3))


def central_cuts(count: int, room: tuple[int, int]) -> np.ndarray:
    """Repeat the cut of the middle; see `draw_cuts`.

    Examples:
        >>> central_cuts(2, (32, 8))
        array([[16,  4,  0],
               [16,  4,  0]])
    """
    return np.tile((room[0] // 2, room[1] // 2, 0), (count, 1))


def pad(images: np.ndarray, padding: int) -> np.ndarray:
    """Surround images by zeros, the mean of standardized images."""
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return np.pad(images, around)


def cut(
    images: np.ndarray, cuts: np.ndarray, size: Sequence[int]
) -> np.ndarray:
    """Cut a piece of this height and width out of each image.

    Examples:
        >>> images = np.arange(4).reshape(1, 2, 2, 1)
        >>> cut(images, np.array([[1, 0, 1]]), (1, 2)).ravel()
        array([3, 2])
    """
    height, width = size
    pieces = np.empty(
        (len(images), height, width, images.shape[-1]), images.dtype
    )
    # Piece by piece is several times as fast as by indices of all pixels.
    for piece, image, (top, left, mirrored) in zip(
        pieces, images, cuts.tolist(), strict=True
    ):
        found = image[top : top + height, left : left + width]
        piece[:] = found[:, ::-1] if mirrored else found
    return pieces
