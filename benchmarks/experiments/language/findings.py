"""Choices by the validation loss, and quantities of runs."""

import itertools
import math

import numpy as np

from benchmarks.experiments.held_rate import held_steps
from benchmarks.experiments.rotations import rms
from benchmarks.harness.files import InputError
from benchmarks.harness.results import Content


def best_pair(content: Content, held: float = math.inf) -> tuple[float, float]:
    """Return AdamW's rate and decay of the lowest validation loss.

    Pairs count at which it settles within some steps: in 1 / (4 rate decay).
    """
    settings, parts = content["settings"], content["parts"]
    pairs = itertools.product(settings["rates"], settings["decays"])
    losses = {
        (rate, decay): _last(parts[f"tuning/{rate:g}/{decay:g}"])
        for rate, decay in pairs
        if 1 / (4 * rate * decay) <= held
    }
    if not losses:
        raise InputError(
            f"AdamW settles at no pair of --rates and --decays within {held}"
            " steps, for which rates are held: choose more --steps."
        )
    return min(losses, key=losses.__getitem__)


def settling(content: Content) -> tuple[float, float]:
    """Return the best pair at which AdamW settles at the held rate."""
    return best_pair(content, held_steps(content["settings"]["steps"]))


def _last(part):
    loss = part["validation"][-1]
    return np.inf if loss is None else loss


def held_rotation(settings: dict, part: dict) -> float:
    """Return the RMS rotation at the held rate, without its first half."""
    chunk = settings["steps"] // settings["chunks"]
    held = held_steps(settings["steps"]) // chunk
    return float(rms(part["rotation"][held // 2 : held]))


def runs(content: Content, name: str, factor: float = 1.0) -> list[dict]:
    """Return the runs of a method at a factor, by seed."""
    seeds = range(content["settings"]["seeds"])
    return [content["parts"][f"{name}/{factor:g}/{seed}"] for seed in seeds]


def losses(parts: list[dict]) -> np.ndarray:
    """Return the test losses of runs, NaN where they diverged."""
    return np.array([part["test"] for part in parts], float)


def best_factor(content: Content, name: str) -> float:
    """Return the factor of the lowest validation loss of a method."""

    def loss(factor):
        return np.mean([_last(part) for part in runs(content, name, factor)])

    return min(content["settings"]["factors"], key=loss)
