"""Learning rates that change in the course of a run, by name."""

from collections.abc import Callable

import optax

__all__ = ["SCHEDULES"]


def _falls(
    factor: float, *shares: float
) -> Callable[[float, int], optax.Schedule]:
    """Falls by a factor after each of these shares of the run."""

    def schedule(rate: float, steps: int) -> optax.Schedule:
        return optax.piecewise_constant_schedule(
            rate, {round(share * steps): factor for share in shares}
        )

    return schedule


SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    "constant": lambda rate, _: optax.constant_schedule(rate),
    "cosine": optax.cosine_decay_schedule,
    "steps": _falls(0.1, 1 / 2, 3 / 4),
    # Those of the PSI paper: after 60, 120 and 160 of 200 epochs, and after 30,
    # 60 and 90 of 100.
    "cifar": _falls(0.2, 0.3, 0.6, 0.8),
    "imagenet": _falls(0.2, 0.3, 0.6, 0.9),
}
"""From the first rate and the number of steps."""
