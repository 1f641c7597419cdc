"""Choices by the validation loss, and quantities of runs."""

import itertools
import math
from typing import Any

import numpy as np

from benchmarks.experiments.held_rate import held_steps
from benchmarks.experiments.rotations import rms
from benchmarks.harness.files import InputError
from benchmarks.harness.results import Content


def tuned(content: Content) -> tuple[float, float]:
    """Return AdamW's rate and decay of the lowest validation loss."""
    return _best_pair(content, held=math.inf)


def settling(content: Content) -> tuple[float, float]:
    """Return the same of pairs at which AdamW reaches its equilibrium.

    That takes about 1 / (4 rate decay) steps, at the held rate.
    """
    return _best_pair(content, held_steps(content["settings"]["steps"]))


def _best_pair(content: Content, held: float) -> tuple[float, float]:
    """Return the best pair of those that settle within the held steps."""
    settings, parts = content["settings"], content["parts"]
    pairs = itertools.product(settings["rates"], settings["decays"])
    settled = [(r, d) for r, d in pairs if 1 / (4 * r * d) <= held]
    if not settled:
        raise InputError(
            f"AdamW settles at no pair of --rates and --decays within {held}"
            " steps, for which rates are held: choose more --steps."
        )
    return min(
        settled, key=lambda pair: _last(parts["tuning/{:g}/{:g}".format(*pair)])
    )


def _last(part: dict[str, Any]) -> float:
    loss = part["validation"][-1]
    return np.inf if loss is None else loss


def held_rotation(settings: dict[str, Any], part: dict[str, Any]) -> float:
    """Return the RMS rotation at the held rate, without its first half."""
    chunk = settings["steps"] // settings["chunks"]
    held = held_steps(settings["steps"]) // chunk
    return float(rms(part["rotation"][held // 2 : held]))


def runs(content: Content, name: str, factor: float) -> list[dict[str, Any]]:
    """Return the runs of a method at a factor, by seed."""
    seeds = range(content["settings"]["seeds"])
    return [content["parts"][f"{name}/{factor:g}/{seed}"] for seed in seeds]


def losses(parts: list[dict[str, Any]]) -> np.ndarray:
    """Return the test losses of runs, NaN where they diverged."""
    return np.array([part["test"] for part in parts], float)


def best_factor(content: Content, name: str) -> float:
    """Return the factor of the lowest validation loss of a method."""
    return min(
        content["settings"]["factors"],
        key=lambda factor: np.mean(
            [_last(part) for part in runs(content, name, factor)]
        ),
    )
