"""Groups that are the columns of one matrix, in numpy."""

import numpy as np

from psi_optax import ScaleGroup

COLUMNS = ScaleGroup(axes=0)


def unit(w):
    """Columns of norm 1."""
    return w / np.linalg.norm(w, axis=-2, keepdims=True)


def angles(path, start):
    """By which every column turns in every step."""
    before = unit(np.concatenate([start[None], path[:-1]]))
    after = unit(path)
    apart = np.linalg.norm(after - before, axis=1)
    return 2 * np.arcsin(apart / 2)
