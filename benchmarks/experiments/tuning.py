"""The choice of a learning rate and a weight decay."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.optimizers import Tuned

HYPERPARAMETERS = ("learning_rate", "weight_decay")


def tune(
    method: Tuned,
    validate: Callable[[float, float], tuple[Any, Any]],
    advance: Callable[[], Any] = lambda: None,
) -> dict[str, Any]:
    """Try every point of a method's grid.

    Args:
        method: an optimizer and its grid.
        validate: trains with a learning rate and a weight decay, and returns
            the accuracy and the loss of each seed on validation data.
        advance: called after each trial.

    Returns:
        The label, all trials, the chosen one (of the best mean accuracy; the
        loss decides ties) and, under `at_edge`, the names of those
        hyperparameters that a wider grid might improve.

    Examples:
        >>> method = Tuned("example", lambda: None, (0.1, 0.2, 0.3))
        >>> result = tune(method, lambda rate, _: (rate, 1.0))
        >>> result["chosen"]["learning_rate"], result["at_edge"]
        (0.3, ['learning_rate'])
    """
    trials = []
    for rate, decay in method.trials():
        accuracy, loss = map(np.mean, validate(rate, decay))
        trials.append(
            {
                "learning_rate": rate,
                "weight_decay": decay,
                "accuracy": float(accuracy),
                # A training that diverged has none, and JSON has no NaN.
                "loss": float(loss) if np.isfinite(loss) else None,
            }
        )
        advance()
    chosen = max(trials, key=_merit)
    return {
        "label": method.label,
        "trials": trials,
        "chosen": chosen,
        "at_edge": _at_edge(method, chosen),
    }


def _merit(trial: dict[str, Any]) -> tuple[float, float]:
    loss = trial["loss"]
    return trial["accuracy"], -float("inf") if loss is None else -loss


def _at_edge(method: Tuned, trial: dict[str, Any]) -> list[str]:
    grids = zip(HYPERPARAMETERS, (method.rates, method.decays), strict=True)
    return [
        name
        for name, grid in grids
        if len(grid) > 1 and trial[name] in (min(grid), max(grid))
    ]


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
