"""The weights and gradients that every implementation is given, in numpy.

Weights are rows, as torch has them: three filters of five numbers. A gradient
is a function of the step's number and of the weights, with matrices of its own
for every step, so that a trajectory feeds back into its gradients. All three
are gradients of functions; they differ in what is invariant.
"""

import numpy as np

STEPS = 12
SHAPE = FILTERS, SIZE = 3, 5


def start(norms=(0.5, 1.0, 2.0)):
    """Filters of the given norms, the same directions at every call."""
    return _scaled(_draw(0, SHAPE), norms)


def unit_start():
    """Filters on the unit sphere."""
    return start(norms=(1.0, 1.0, 1.0))


def centered_start():
    """Filters of mean zero."""
    weights = _draw(0, SHAPE)
    weights -= weights.mean(axis=1, keepdims=True)
    return _scaled(weights, (0.5, 1.0, 2.0))


def per_filter(step, weights):
    """Of a sum of Rayleigh quotients: the scale of no filter matters."""
    return _rayleigh(_symmetric(step, FILTERS, SIZE), weights)


def per_layer(step, weights):
    """Of one Rayleigh quotient: only the scale of all filters has no effect.

    The filters differ in what they add to it, so that each filter's gradient
    has a radial part at every step.
    """
    flat = weights.reshape(1, -1)
    share = np.diag(np.repeat((-1.0, 0.0, 1.0), SIZE))
    matrix = share + _symmetric(step, 1, flat.size)
    return _rayleigh(matrix, flat).reshape(SHAPE)


def ordinary(step, weights):
    """Of a convex quadratic function: every scale matters."""
    matrices = _draw(step + 1, (FILTERS, SIZE, SIZE))
    return _times(matrices.swapaxes(1, 2), _times(matrices, weights)) / 4


def _rayleigh(matrices, weights):
    square = np.sum(weights**2, axis=1, keepdims=True)
    pull = _times(matrices, weights)
    value = np.sum(weights * pull, axis=1, keepdims=True) / square
    return 2 * (pull - value * weights) / square


def _symmetric(step, count, size):
    matrices = _draw(step + 1, (count, size, size))
    return (matrices + matrices.swapaxes(1, 2)) / 4


def _times(matrices, rows):
    return np.einsum("kij,kj->ki", matrices, rows)


def _scaled(rows, norms):
    return rows * (np.asarray(norms) / np.linalg.norm(rows, axis=1))[:, None]


def _draw(seed, shape):
    return np.random.RandomState(seed).normal(size=shape)
