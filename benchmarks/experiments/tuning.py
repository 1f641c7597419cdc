"""The choice of a learning rate and a weight decay."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.optimizers import Tuned

HYPERPARAMETERS = ("learning_rate", "weight_decay")

TUNING_SEED = 1000
"""First seed in tuning, far from those of the final runs, which start at 0."""


def tune(
    method: Tuned,
    validate: Callable[[float, float], tuple[Any, Any]],
    advance: Callable[[], Any] = lambda: None,
) -> dict[str, Any]:
    """Try every point of a method's grid.

    `validate` trains with a learning rate and a weight decay, and returns the
    accuracy and the loss of each seed. The chosen trial has the best mean
    accuracy; the loss decides ties. `at_edge` names hyperparameters, see
    `is_at_edge`. `advance` is called after each trial.

    Examples:
        >>> method = Tuned("example", lambda: None, (0.1, 0.2, 0.3))
        >>> result = tune(method, lambda rate, _: (rate, 1.0))
        >>> point(result), result["at_edge"]
        ((0.3, 0.0), ['learning_rate'])
    """
    trials = []
    for values in method.trials():
        accuracy, loss = map(np.mean, validate(*values))
        trials.append(
            {
                **dict(zip(HYPERPARAMETERS, values, strict=True)),
                "accuracy": float(accuracy),
                # A training that diverged has none, and JSON has no NaN.
                "loss": float(loss) if np.isfinite(loss) else None,
            }
        )
        advance()
    chosen: Any = max(trials, key=_merit)
    grids = zip(HYPERPARAMETERS, (method.rates, method.decays), strict=True)
    at_edge = [name for name, grid in grids if is_at_edge(chosen[name], grid)]
    return {
        "label": method.label,
        "trials": trials,
        "chosen": chosen,
        "at_edge": at_edge,
    }


def is_at_edge(value: float, grid: Sequence[float]) -> bool:
    """Tell whether a wider grid might improve a choice."""
    return len(grid) > 1 and value in (min(grid), max(grid))


def _merit(trial: dict[str, Any]) -> tuple[float, float]:
    loss = trial["loss"]
    return trial["accuracy"], -float("inf") if loss is None else -loss


def point(tuned: dict[str, Any]) -> tuple[float, float]:
    """Return the chosen learning rate and weight decay."""
    return tuned["chosen"]["learning_rate"], tuned["chosen"]["weight_decay"]


def tuned_to(tuned: dict[str, Any], names: Sequence[str]) -> str:
    """Return a choice, with names before rate and decay and stars at edges.

    Examples:
        >>> chosen = {"learning_rate": 0.1, "weight_decay": 0.01}
        >>> tuned = {"chosen": chosen, "at_edge": ["weight_decay"]}
        >>> tuned_to(tuned, ["lr ", "wd "])
        'lr 0.1, wd 0.01★'
    """
    return ", ".join(
        f"{name}{tuned['chosen'][key]:g}{'★' * (key in tuned['at_edge'])}"
        for key, name in zip(HYPERPARAMETERS, names, strict=True)
        if tuned["chosen"][key]
    )
