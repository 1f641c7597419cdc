"""A learning rate that is held, then decays, and the transient of SGD."""

import math

import jax
import optax

from benchmarks.experiments.rotations import rms
from benchmarks.harness.files import InputError
from benchmarks.optimizers import MOMENTUM


def held_steps(steps: int) -> int:
    """Return for how many of the steps the rate is held."""
    return steps - steps // 2


def hold_then_decay(rate: jax.typing.ArrayLike, steps: int) -> optax.Schedule:
    """Hold a rate, which may be traced, for half of the steps; then decay it.

    Examples:
        >>> schedule = hold_then_decay(0.1, 100)
        >>> [round(float(schedule(step)), 3) for step in (0, 49, 75, 99)]
        [0.1, 0.1, 0.05, 0.0]
    """
    held = held_steps(steps)
    decayed = optax.cosine_decay_schedule(rate, steps - held)
    return optax.join_schedules(
        [optax.constant_schedule(rate), decayed], [held]
    )


def transient_steps(rate: float, decay: float, held: int) -> int:
    """Return how many of the steps at the held rate SGD needs to settle.

    A quarter of them, or twelve of the times in which the fourth power of norms
    relaxes, see `equilibrium_transient`, if these are more: norms that begin
    ten times too long are then within 1e4 exp(-12) = 6 % of their equilibrium,
    and the rotation within 3 %.

    Examples:
        >>> transient_steps(0.03, 0.1, 400), transient_steps(0.03, 0.01, 1200)
        (100, 1000)
    """
    settling = math.ceil(12 * (1 - MOMENTUM) / (4 * rate * decay))
    steps = max(math.ceil(held / 4), settling)
    if steps >= held:
        raise InputError(
            f"at rate {rate:g} and decay {decay:g} SGD settles within {steps}"
            f" steps, and the rate is held for {held}: train for more epochs."
        )
    return steps


def held_rotation(settings: dict, part: dict) -> float:
    """Return the RMS rotation at the held rate, without its first half."""
    chunk = settings["steps"] // settings["chunks"]
    held = held_steps(settings["steps"]) // chunk
    return float(rms(part["rotation"][held // 2 : held]))
