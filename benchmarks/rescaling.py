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
import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from benchmarks import data, pages, report, training
from benchmarks.harness import files
from benchmarks.harness.files import one_message
from benchmarks.methods import DEFAULT, METHODS, Method
from benchmarks.options import at_least, one_of, positive
from benchmarks.tuning import tune
from psi_optax.models import linen

__all__ = ["Settings", "main", "run", "scale_filters"]

TUNING_SEED = 1000  # far from the seeds of the final runs, which start at 0
EPOCHS = {"digits": 20}  # the other data sets are fifty times larger


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
    optimizers: tuple[str, ...] = DEFAULT
    scales: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    seeds: int = 10
    epochs: int = 20
    batch_size: int = 64
    widths: tuple[int, ...] = (64, 64)
    bn_epsilon: float = 1e-5
    bn_momentum: float = 0.9


def scale_filters(variables: Any, groups: Any, factor: float) -> Any:
    """Multiply the weights of every scale group.

    Args:
        variables: variables of a model of `psi_optax.models`.
        groups: a tree like its parameters, with None where there are none.
        factor: a number.

    Returns:
        The variables, with all other parameters unchanged.
    """
    params = variables["params"]
    scaled = jax.tree.map(
        lambda group, leaf: leaf if group is None else factor * leaf,
        groups,
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
        self.groups = training.kernel_groups(model, dataset.train_images).groups
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
            start = scale_filters(start, self.groups, scale)
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
    result = tune(
        method, functools.partial(tuning.compile(method), 1.0), advance
    )
    best = result["chosen"]
    test, accuracies = final.compile(method), {}
    for scale in scales:
        found, _ = test(scale, best["learning_rate"], best["weight_decay"])
        accuracies[f"{scale:g}"] = np.asarray(found, np.float64).tolist()
        advance()
    return {**result, "accuracy": accuracies}


@one_message()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment from the command line.

    Args:
        arguments: the command line; that of the process by default.
    """
    defaults = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rescaling",
        description="Train from rescaled initial weights, with each optimizer.",
    )
    add = parser.add_argument
    add(
        "--dataset",
        choices=data.NAMES,
        type=one_of(data.NAMES),
        default=defaults.dataset,
    )
    add(
        "--seeds",
        type=at_least(1),
        default=defaults.seeds,
        help="default: %(default)s",
    )
    add(
        "--epochs",
        type=at_least(1),
        help="20 for digits, otherwise 3 by default",
    )
    add(
        "--optimizers",
        nargs="+",
        choices=METHODS,
        type=one_of(METHODS),
        default=defaults.optimizers,
        metavar="NAME",
        help=f"some of {', '.join(METHODS)}; by default {', '.join(DEFAULT)}",
    )
    add("--scales", nargs="+", type=positive, default=defaults.scales)
    add("--out", type=pathlib.Path, default="results", help="folder to write")
    add("--docs", action="store_true", help="write README.md and docs/")
    given = vars(parser.parse_args(arguments))
    out, docs = given.pop("out"), given.pop("docs")
    files.make_folder(out)
    given["epochs"] = given["epochs"] or EPOCHS.get(given["dataset"], 3)
    results = run(defaults._replace(**given))
    print(report.table(results))
    numbers, image = report.write(results, out)
    print(f"written: {numbers}\nwritten: {image}")
    if docs:
        readme = pages.DOCS.parent / "README.md"
        pages.refill(readme, "rescaling", report.table(results))
        pages.keep(numbers, pages.DOCS / image.name)
        files.write(pages.DOCS / image.name, image.read_bytes())


if __name__ == "__main__":
    main()
