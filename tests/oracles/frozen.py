"""Reads the frozen trajectories; tests need nothing else of other libraries."""

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

DATA = pathlib.Path(__file__).parent / "data"


class Trajectory(NamedTuple):
    """What one optimizer did, in float64; rows are filters, as torch has them.

    Attributes:
        start: weights, of shape (filters, size).
        gradients: as the optimizer saw them, of shape (steps, filters, size).
        params: the weights after each step, of the same shape.
        settings: the arguments of the optimizer, under its own names.
        versions: of what made this.
    """

    start: np.ndarray
    gradients: np.ndarray
    params: np.ndarray
    settings: dict[str, Any]
    versions: dict[str, str]


def load(name: str) -> Trajectory:
    """The trajectory of that name; `names` lists them."""
    found = arrays(name)
    return Trajectory(
        found["start"],
        found["gradients"],
        found["params"],
        json.loads(found["settings"].item()),
        json.loads(found["versions"].item()),
    )


def arrays(name: str) -> dict[str, np.ndarray]:
    """All that a file holds; pymanopt's is no trajectory."""
    with np.load(DATA / f"{name}.npz") as file:
        return dict(file)


def names(prefix: str = "") -> list[str]:
    """The files whose names begin so, sorted."""
    return sorted(path.stem for path in DATA.glob(f"{prefix}*.npz"))
