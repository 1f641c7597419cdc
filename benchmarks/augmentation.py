"""The standard augmentation of images, in numpy: shifts and reflections.

A cut says where a piece is taken out of an image: its first row, its first
column, and whether left and right are exchanged (1) or not (0).
"""

import numpy as np

__all__ = ["central_cuts", "crop_and_flip", "cut", "draw_cuts", "pad"]


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
    count, *size, _ = images.shape
    cuts = draw_cuts(count, (2 * padding, 2 * padding), random)
    return cut(pad(images, padding), cuts, size)


def draw_cuts(
    count: int, room: tuple[int, int], random: np.random.Generator
) -> np.ndarray:
    """A random cut for each image.

    Args:
        count: number of images.
        room: by how much they are higher and wider than the pieces, in pixels.
        random: where cuts are drawn from.

    Returns:
        Integers of shape `(count, 3)`.

    Examples:
        >>> draw_cuts(5, (8, 8), np.random.default_rng(0)).shape
        (5, 3)
    """
    return random.integers(0, (room[0] + 1, room[1] + 1, 2), (count, 3))


def central_cuts(count: int, room: tuple[int, int]) -> np.ndarray:
    """The cut out of the middle, once for each image; see `draw_cuts`.

    Examples:
        >>> central_cuts(2, (32, 8))
        array([[16,  4,  0],
               [16,  4,  0]])
    """
    return np.tile((room[0] // 2, room[1] // 2, 0), (count, 1))


def pad(images: np.ndarray, padding: int) -> np.ndarray:
    """Images with that many pixels of zeros around them."""
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return np.pad(images, around)


def cut(images: np.ndarray, cuts: np.ndarray, size) -> np.ndarray:
    """Cuts a piece out of each image.

    Args:
        images: of shape `(n, height, width, channels)`, any dtype.
        cuts: of shape `(n, 3)`.
        size: height and width of the pieces, in pixels.

    Returns:
        Pieces of shape `(n, *size, channels)`.

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
