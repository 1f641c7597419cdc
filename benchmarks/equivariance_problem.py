"""A loss that sees only directions, and how far rescaling moves a run.

Plain numpy, with the gradient written out, so that optimizers of any library
follow the same numbers. Two layers of filters (the columns of two kernels)

    mean |tanh(tanh(x V) U) a - y|^2 / 2,   V = 2 W / |W|, column by column,

and U alike; the head a is fixed. Every step has a minibatch of its own, whose
labels are half noise.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Weights = dict[str, np.ndarray]  # kernels of shape (size, filters)
Path = dict[str, np.ndarray]  # the same after each step: (steps, size, filters)
Run = Callable[[Weights], Path]  # from some weights on

STEPS, BATCH = 30, 32
SHAPES = {"first": (12, 16), "second": (16, 10)}
OUTPUTS = 4
GAIN = 2.0  # or the units would be linear, and the loss close to quadratic

KINDS = ("network", "tensor", "filter")
"""What has a factor of its own, the coarsest first."""


def _normal(
    random: np.random.RandomState, rows: int, *shape: int
) -> np.ndarray:
    """Numbers that keep the size of what is multiplied by them."""
    return random.normal(size=(rows, *shape)) / np.sqrt(rows)


_random = np.random.RandomState(0)
_START = {name: _normal(_random, *shape) for name, shape in SHAPES.items()}
_HEAD = _normal(_random, 10, OUTPUTS)
_TEACHER = _normal(_random, 12, OUTPUTS)
_INPUTS = _random.normal(size=(STEPS, BATCH, 12))
_NOISE = _random.normal(size=(STEPS, BATCH, OUTPUTS))
_LABELS = _INPUTS @ _TEACHER + _NOISE


def start(dtype: Any = np.float64) -> Weights:
    """The first weights: filters of norms about 1, no two alike."""
    return {name: w.astype(dtype) for name, w in _START.items()}


def gradient(step: int, weights: Weights) -> Weights:
    """The gradient of the loss on the minibatch of a step.

    It is of degree -1: a filter's is divided by what the filter is multiplied
    by, exactly if that is a power of two.
    """
    dtype = weights["first"].dtype
    x, y, head = (
        a.astype(dtype) for a in (_INPUTS[step], _LABELS[step], _HEAD)
    )
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
    """Weights with a factor from base^-span to base^span for every unit.

    Args:
        weights: kernels.
        kind: the unit, one of `KINDS`. Exponents are spread evenly, both ends
            included, and shuffled; a single one is `span`. They are whole
            numbers for base 2.
        base: 2 or 10, say.
        span: the largest exponent.

    Examples:
        >>> ones = {"first": np.ones((1, 2)), "second": np.ones((1, 2))}
        >>> rescaled(ones, "network", 10, 1)["second"].tolist()
        [[10.0, 10.0]]
        >>> moved = rescaled(ones, "filter", 2, 20)
        >>> np.log2([*moved.values()]).tolist()
        [[[-7.0, -20.0]], [[7.0, 20.0]]]
    """
    filters = [w.shape[1] for w in weights.values()]
    units = {"network": 1, "tensor": len(filters), "filter": sum(filters)}[kind]
    exponents = np.linspace(span, -span, units)
    if base == 2:
        exponents = np.round(exponents)
    factors = float(base) ** np.random.RandomState(0).permutation(exponents)
    if kind != "filter":
        factors = np.repeat(np.resize(factors, len(filters)), filters)
    pieces = np.split(factors, np.cumsum(filters)[:-1])
    return {
        name: w * piece.astype(w.dtype)
        for (name, w), piece in zip(weights.items(), pieces, strict=True)
    }


def measure(run: Run) -> dict[str, Any]:
    """How far rescaled starts move a run, and what the run itself does.

    Args:
        run: follows an optimizer in float64.

    Returns:
        "errors": the direction error by kind of rescaling; "moved": the largest
        change of a coordinate of a direction from the first weights to the
        last; "growth": the largest quotient of a filter's last norm and its
        first.
    """
    path = run(start())
    first = start()
    last = {name: w[-1] for name, w in path.items()}
    return {
        "errors": {
            kind: direction_error(path, run(rescaled(first, kind, 10, 1)))
            for kind in KINDS
        },
        "moved": direction_error(first, last),
        "growth": _largest(norms(last[k]) / norms(first[k]) for k in first),
    }


def stacked(path: list[Weights]) -> Path:
    """Weights after each step as one tree."""
    return {name: np.stack([w[name] for w in path]) for name in path[0]}


def direction_error(one: Path, other: Path) -> float:
    """The largest difference of a coordinate of unit directions, ever."""
    v, u = directions(one), directions(other)
    return _largest(np.abs(v[name] - u[name]) for name in v)


def directions(weights: Weights) -> Weights:
    """Filters over their norms."""
    return {name: w / norms(w) for name, w in weights.items()}


def norms(w: np.ndarray) -> np.ndarray:
    """The norm of every filter of one kernel; shape (..., 1, filters)."""
    return np.sqrt((w**2).sum(-2, keepdims=True))


def _largest(arrays) -> float:
    return float(np.max([a.max() for a in arrays]))
