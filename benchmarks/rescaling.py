"""Does the scale of the initial weights matter?

Batch normalization makes the network's output independent of the norm of the
filters before it, but not the optimizer's steps. This trains a batch-normalized
network from initial filters that are multiplied by 0.01 to 100, by optimizers
that were tuned where nothing is multiplied:

    python -m benchmarks.rescaling

The learning rate (and decay) of each is chosen on a validation part of the
training data, at scale 1; then the network is trained on all training data from
other seeds, at every scale. All methods start from the same weights: none has
them normalized first, which would undo the scale for whoever does it.
"""

import argparse
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from benchmarks import data, report, training
from benchmarks.methods import METHODS, Method
from psi_optax.models import linen, scale_groups

__all__ = ["Settings", "main", "run", "scale_filters"]

TUNING_SEED = 1000  # far from the seeds of the final runs, which start at 0


class Settings(NamedTuple):
    """What an experiment is made of; `run` puts it into the results.

    Attributes:
        dataset: name of the data set.
        optimizers: names of methods.
        scales: factors of the initial filters.
        seeds: number of seeds, in tuning and in the final runs.
        epochs: number of epochs of each training.
        batch_size: number of examples in a batch.
        widths: numbers of hidden units.
        bn_epsilon: epsilon of batch normalization; this is Flax's default.
        bn_momentum: momentum of its running statistics.
    """

    dataset: str = "digits"
    optimizers: tuple[str, ...] = tuple(METHODS)
    scales: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    seeds: int = 10
    epochs: int = 20
    batch_size: int = 64
    widths: tuple[int, ...] = (64, 64)
    bn_epsilon: float = 1e-5
    bn_momentum: float = 0.9


def scale_filters(variables: Any, factor: float) -> Any:
    """Multiply the weights of every scale group.

    Args:
        variables: variables of a model of `psi_optax.models`.
        factor: a number.

    Returns:
        The variables, with all other parameters unchanged.
    """
    params = variables["params"]
    scaled = jax.tree.map(
        lambda group, leaf: leaf if group is None else factor * leaf,
        scale_groups(params),
        params,
        is_leaf=lambda group: group is None,
    )
    return {**variables, "params": scaled}


def run(settings: Settings, progress: bool = True) -> dict[str, Any]:
    """Tune every method and train with it at every scale.

    Args:
        settings: the experiment.
        progress: show a progress bar.

    Returns:
        The settings and, by method, every trial, the chosen one, and the test
        accuracy of each seed at each scale. It can be written as JSON.
    """
    start = time.perf_counter()
    full = data.load(settings.dataset)
    model = linen.MLP(
        settings.widths,
        full.num_classes,
        epsilon=settings.bn_epsilon,
        momentum=settings.bn_momentum,
    )
    tuning = _Runs(model, data.hold_out(full), settings, TUNING_SEED)
    final = _Runs(model, full, settings, 0)
    methods = {name: METHODS[name] for name in settings.optimizers}
    trials = sum(len(method.trials()) for method in methods.values())
    total = trials + len(methods) * len(settings.scales)
    results = {}
    with tqdm(total=total, disable=not progress, unit="run") as bar:
        for name, method in methods.items():
            bar.set_description(method.label)
            results[name] = _measure(
                method, tuning, final, settings.scales, bar.update
            )
    seconds = round(time.perf_counter() - start, 1)
    return {
        **settings._asdict(),
        "methods": results,
        "versions": report.versions(),
        "seconds": seconds,
    }


class _Runs:
    """Training on one split, from one set of seeds."""

    def __init__(
        self,
        model: linen.MLP,
        dataset: data.Dataset,
        settings: Settings,
        first_seed: int,
    ):
        seeds = range(first_seed, first_seed + settings.seeds)
        self.model, self.dataset = model, dataset
        self.evaluate = training.make_evaluate(model, dataset)
        self.variables = training.initialize(model, dataset.train_images, seeds)
        self.batches = training.make_batches(
            len(dataset.train_labels),
            settings.batch_size,
            settings.epochs,
            seeds,
        )

    def compile(self, method: Method) -> Callable:
        """Return a function of scale, rate and decay: accuracies, losses."""
        train = training.make_train(self.model, method.build, self.dataset)

        def measure(scale: float, rate: float, decay: float):
            # A copy, since training donates its argument.
            start = jax.tree.map(jnp.copy, self.variables)
            start = scale_filters(start, scale)
            return self.evaluate(train(start, self.batches, rate, decay))

        return measure


def _measure(
    method: Method,
    tuning: _Runs,
    final: _Runs,
    scales: Sequence[float],
    advance: Callable[[], Any],
) -> dict[str, Any]:
    """Tune one method at scale 1, then train with it at every scale."""
    validate, trials = tuning.compile(method), []
    for rate, decay in method.trials():
        accuracies, losses = validate(1.0, rate, decay)
        trials.append(
            {
                "learning_rate": rate,
                "weight_decay": decay,
                "accuracy": float(np.mean(accuracies)),
                "loss": _finite(np.mean(losses)),
            }
        )
        advance()
    best = max(trials, key=_merit)
    test, accuracies = final.compile(method), {}
    for scale in scales:
        found, _ = test(scale, best["learning_rate"], best["weight_decay"])
        accuracies[f"{scale:g}"] = np.asarray(found, np.float64).tolist()
        advance()
    return {
        "label": method.label,
        "trials": trials,
        "chosen": best,
        "at_edge": _at_edge(method, best),
        "accuracy": accuracies,
    }


def _finite(loss: np.floating) -> float | None:
    # JSON has no NaN.
    return float(loss) if np.isfinite(loss) else None


def _merit(trial: dict[str, Any]) -> tuple[float, float]:
    # By accuracy; the loss decides ties.
    loss = trial["loss"]
    return trial["accuracy"], -float("inf") if loss is None else -loss


def _at_edge(method: Method, trial: dict[str, Any]) -> list[str]:
    """Name the hyperparameters that a larger grid might improve."""
    grids = {
        "learning_rate": method.learning_rates,
        "weight_decay": method.weight_decays,
    }
    return [
        name
        for name, grid in grids.items()
        if len(grid) > 1 and trial[name] in (grid[0], grid[-1])
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment from the command line.

    Args:
        arguments: the command line; that of the process by default.
    """
    defaults = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rescaling",
        description="Train from rescaled initial weights, with each optimizer.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--dataset", choices=data.NAMES, default="digits")
    parser.add_argument("--seeds", type=int, default=defaults.seeds)
    parser.add_argument("--epochs", type=int, default=defaults.epochs)
    parser.add_argument(
        "--optimizers",
        nargs="+",
        choices=METHODS,
        default=defaults.optimizers,
        metavar="NAME",
        help=", ".join(METHODS),
    )
    parser.add_argument(
        "--scales", nargs="+", type=float, default=defaults.scales
    )
    parser.add_argument("--out", type=pathlib.Path, default="results")
    given = vars(parser.parse_args(arguments))
    out = given.pop("out")
    results = run(defaults._replace(**given))
    print(report.table(results))
    for path in report.write(results, out):
        print(f"written: {path}")


if __name__ == "__main__":
    main()
