"""A loss that is scale-invariant filter by filter, and errors of directions.

Plain numpy with the gradient written out, so that optimizers of any library
follow the same numbers. Two layers of filters (the columns of two kernels)

    mean |tanh(tanh(x V) U) a - y|^2 / 2,   V = 2 W / |W|, column by column,

and U alike; the head a is fixed. Each step has a minibatch of its own, whose
labels are half noise.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Weights = dict[str, np.ndarray]  # kernels of shape (size, filters)
Path = list[Weights]  # the same after each step
Run = Callable[[Weights], Path]

STEPS, BATCH = 30, 32
SHAPES = {"first": (12, 16), "second": (16, 10)}
GAIN = 2.0  # or the units would be linear, and the loss close to quadratic
DIVERGED = 1e9  # stands for values that are not finite, which JSON lacks

KINDS = ("network", "tensor", "filter")
"""The units that get a factor of their own, the coarsest first."""

# Rates at which optimizers move: the property does not depend on them.
RATE = 0.02  # with momentum 0.9
ADAM = 0.02  # of methods whose steps have elements of about this size
ANGLE = 0.05  # of methods that turn by about this many radians a step

_random = np.random.RandomState(0)


def _normal(*shape: int) -> np.ndarray:
    """Draw a matrix that keeps the size of its factors."""
    return _random.normal(size=shape) / np.sqrt(shape[0])


_START = {name: _normal(*shape) for name, shape in SHAPES.items()}
HEAD, _TEACHER = _normal(10, 4), _normal(12, 4)
INPUTS = _random.normal(size=(STEPS, BATCH, 12))
LABELS = INPUTS @ _TEACHER + _random.normal(size=(STEPS, BATCH, 4))


def start(dtype: Any = np.float64) -> Weights:
    """Return the first weights: filters of norms about 1, no two alike."""
    return {name: w.astype(dtype) for name, w in _START.items()}


def gradient(step: int, weights: Weights) -> Weights:
    """Return the gradient of the loss on the minibatch of a step.

    It is of degree -1: a filter's is divided by the factor of the filter,
    exactly if that is a power of two.
    """
    dtype = weights["first"].dtype
    x, y, head = (a.astype(dtype) for a in (INPUTS[step], LABELS[step], HEAD))
    gain = dtype.type(GAIN)
    v = directions(weights)
    hidden = np.tanh(x @ v["first"] * gain)
    output = np.tanh(hidden @ v["second"] * gain)
    back = (output @ head - y) @ head.T * (1 - output**2) * gain / len(x)
    slopes = {"second": hidden.T @ back}
    back = back @ v["second"].T * (1 - hidden**2) * gain
    slopes["first"] = x.T @ back
    return {
        name: (slopes[name] - u * (u * slopes[name]).sum(0)) / norms(w)
        for (name, w), u in zip(weights.items(), v.values(), strict=True)
    }


def rescaled(weights: Weights, kind: str, base: float, span: int) -> Weights:
    """Multiply every unit by a factor from base^-span to base^span.

    Exponents are spread evenly, both ends included, and shuffled; a single one
    is `span`. They are whole numbers for base 2.

    Examples:
        >>> ones = {"first": np.ones((1, 2)), "second": np.ones((1, 2))}
        >>> np.log2([*rescaled(ones, "filter", 2, 20).values()]).tolist()
        [[[-7.0, -20.0]], [[7.0, 20.0]]]
    """
    sizes = [w.shape[1] for w in weights.values()]
    filters = np.arange(sum(sizes))
    tensors = np.repeat(np.arange(len(sizes)), sizes)
    unit = dict(zip(KINDS, (0 * filters, tensors, filters), strict=True))[kind]
    exponents = np.linspace(span, -span, unit[-1] + 1)
    if base == 2:
        exponents = np.round(exponents)
    factors = float(base) ** np.random.RandomState(0).permutation(exponents)
    pieces = np.split(factors[unit], np.cumsum(sizes)[:-1])
    return {
        name: w * piece.astype(w.dtype)
        for (name, w), piece in zip(weights.items(), pieces, strict=True)
    }


def measure(run: Run) -> dict[str, Any]:
    """Return how far rescaled starts move a run in float64.

    "moved" is the direction error of the last weights and the first, "growth"
    the largest quotient of a filter's last norm and its first.
    """
    first = start()
    path = run(first)
    last = path[-1]
    return {
        "errors": {
            kind: direction_error(path, run(rescaled(first, kind, 10, 1)))
            for kind in KINDS
        },
        "moved": direction_error([first], [last]),
        "growth": _largest(norms(last[k]) / norms(first[k]) for k in first),
    }


def direction_error(one: Path, other: Path) -> float:
    """Return the largest difference of a coordinate of unit directions."""
    pairs = zip(map(directions, one), map(directions, other), strict=True)
    return _largest(np.abs(v[name] - u[name]) for v, u in pairs for name in v)


def directions(weights: Weights) -> Weights:
    """Divide filters by their norms."""
    return {name: w / norms(w) for name, w in weights.items()}


def norms(w: np.ndarray) -> np.ndarray:
    """Return the norms of the filters of a kernel, shape (1, filters)."""
    return np.sqrt((w**2).sum(0, keepdims=True))


def _largest(arrays: Iterable[np.ndarray]) -> float:
    largest = float(np.max([a.max() for a in arrays]))
    return largest if np.isfinite(largest) else DIVERGED
