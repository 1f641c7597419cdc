"""Does a matched rate replace weight decay?

    python -m benchmarks.matching
    python -m benchmarks.matching --docs  # and docs/matching-weight-decay.md

A batch-normalized network is trained on digits by SGD with tuned weight decay,
at a rate that is held for one half of the steps and falls in the other. The
decay of the filters is then dropped, and their rate is replaced by what
`matching_learning_rate` makes of the same schedule: do they turn by the same
angles, and is the accuracy the same? The exit status is 1 if not.

`psi_sgd` has to be told the norm of its gradients. It is found in pilots: runs
at the held rate from other seeds, which see no test data.
"""

import argparse
import functools
import json
import math
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from benchmarks import data, matching_report, pages, report, training
from benchmarks.harness import files
from benchmarks.harness.files import one_message
from benchmarks.held_rate import (
    held_steps,
    hold_then_decay,
    transient_steps,
)
from benchmarks.matched import LABELS, builds, psi_sgd
from benchmarks.methods import METHODS, MOMENTUM
from benchmarks.options import at_least
from benchmarks.recording import make_recorded, rms
from benchmarks.training import Build
from benchmarks.tuning import tune
from psi_optax.dynamics import equilibrium_rotation
from psi_optax.models import linen

__all__ = ["Settings", "main", "run"]

# Far from the seeds of the final runs, which start at 0.
TUNING_SEED, PILOT_SEED = 1000, 2000

FIRST_GUESS = 1.0
"""The gradient norm of the first pilot."""

_PAGE = pages.DOCS / "matching-weight-decay.md"


class Settings(NamedTuple):
    """What the experiment is made of; `run` puts it into the results.

    Attributes:
        dataset: name of the data set.
        seeds: number of seeds, in tuning, in each pilot and in the final runs.
        epochs: number of epochs of each training.
        pilots: number of pilots, one after the other.
        batch_size: number of examples in a batch.
        widths: numbers of hidden units.
    """

    dataset: str = "digits"
    seeds: int = 10
    epochs: int = 40
    pilots: int = 4
    batch_size: int = 64
    widths: tuple[int, ...] = (64, 64)


class _Runs:
    """Training on one split, from one set of seeds."""

    def __init__(
        self,
        model: linen.MLP,
        settings: Settings,
        dataset: data.Dataset,
        first_seed: int,
    ):
        seeds = range(first_seed, first_seed + settings.seeds)
        self.model, self.dataset = model, dataset
        self.variables = training.initialize(model, dataset.train_images, seeds)
        self.batches = training.make_batches(
            len(dataset.train_labels),
            settings.batch_size,
            settings.epochs,
            seeds,
        )
        self.evaluate = training.make_evaluate(model, dataset)

    def compile(self, build: Build, schedule: Callable = hold_then_decay):
        """Return a function of rate and decay: variables, rotations."""
        train = make_recorded(self.model, build, self.dataset, schedule)
        return functools.partial(train, self.variables, self.batches)


class _Point(NamedTuple):
    """What was tuned, and the steps at the held rate that are looked at."""

    rate: float
    decay: float
    settled: slice


def run(settings: Settings, progress: bool = True) -> dict[str, Any]:
    """Tune SGD, match its rotation, and train.

    Args:
        settings: the experiment.
        progress: show a progress bar.

    Returns:
        What `matching_report` shows: the settings, the tuning, the pilots, and
        the rotations and accuracies of each method. It can be written as JSON.

    Raises:
        ValueError: as in `transient_steps`.
    """
    full = data.load(settings.dataset)
    model = linen.MLP(
        settings.widths, full.num_classes, epsilon=1e-5, momentum=0.9
    )
    runs = functools.partial(_Runs, model, settings)
    total = len(METHODS["sgd_decay"].trials()) + settings.pilots + len(LABELS)
    with tqdm(total=total, disable=not progress, unit="run") as bar:
        tuned = _tune(runs(data.hold_out(full), TUNING_SEED), bar.update)
        rate = tuned["chosen"]["learning_rate"]
        decay = tuned["chosen"]["weight_decay"]
        final = runs(full, 0)
        steps = final.batches.shape[1]
        held = held_steps(steps)
        transient = transient_steps(rate, decay, held)
        point = _Point(rate, decay, slice(transient, held))
        pilots, norm = [], FIRST_GUESS
        for index in range(settings.pilots):
            others = runs(full, PILOT_SEED + index * settings.seeds)
            pilots.append(_pilot(others, norm, point))
            norm = pilots[-1]["corrected"]
            bar.update()
        methods = {}
        for name, build in builds(norm).items():
            methods[name] = _measure(final, build, point)
            methods[name]["label"] = LABELS[name]
            bar.update()
    rates = hold_then_decay(rate, steps)(np.arange(steps))
    return {
        **settings._asdict(),
        "steps": steps,
        "held": held,
        "transient": transient,
        "tuning": tuned,
        "pilots": pilots,
        "predicted": _predicted(rates, decay).tolist(),
        "methods": methods,
        "versions": report.versions(),
    }


def _tune(runs: _Runs, advance: Callable[[], Any]) -> dict[str, Any]:
    method = METHODS["sgd_decay"]
    train = runs.compile(method.build)
    return tune(
        method,
        lambda rate, decay: runs.evaluate(train(rate, decay)[0]),
        advance,
    )


def _pilot(runs: _Runs, norm: float, point: _Point) -> dict[str, float]:
    """Train `psi_sgd` at the held rate, and see what gradient norm it has."""
    runs.batches = runs.batches[:, : point.settled.stop]
    train = runs.compile(psi_sgd(norm), lambda rate, _: rate)
    _, angles = train(point.rate, point.decay)
    seen = rms(angles[:, point.settled], (1, 2))
    turned = float(rms(seen))
    wanted = float(_predicted(point.rate, point.decay))
    return {
        "gradient_norm": norm,
        "rotation": turned,
        "spread": float(seen.std(ddof=1)),
        "wanted": wanted,
        "corrected": norm * math.tan(turned) / math.tan(wanted),
    }


def _measure(runs: _Runs, build: Build, point: _Point) -> dict[str, Any]:
    """Rotations in radians a step, and the accuracy of each seed."""
    variables, angles = runs.compile(build)(point.rate, point.decay)
    filters = rms(angles[:, point.settled], 1)
    return {
        "curve": rms(angles, (0, 2)).tolist(),
        "filters": np.quantile(filters, (0.1, 0.9)).tolist(),
        "accuracy": np.asarray(runs.evaluate(variables)[0], float).tolist(),
    }


def _predicted(rate: jax.typing.ArrayLike, decay: float) -> np.ndarray:
    """The rotation at which SGD with decay settles."""
    return np.asarray(equilibrium_rotation(rate, decay, momentum=MOMENTUM))


@one_message()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment from the command line.

    Args:
        arguments: the command line; that of the process by default.
    """
    defaults = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.matching",
        description="Replace weight decay by a matched learning rate.",
    )
    add = parser.add_argument
    add("--seeds", type=at_least(2), default=defaults.seeds, help="2 or more")
    add("--epochs", type=at_least(1), default=defaults.epochs)
    add("--out", type=pathlib.Path, default="results", help="folder to write")
    add("--docs", action="store_true", help=f"write {_PAGE}")
    args = parser.parse_args(arguments)

    files.make_folder(args.out)
    results = run(defaults._replace(seeds=args.seeds, epochs=args.epochs))
    section = matching_report.section(results)
    print(section)
    path = args.out / "matching.json"
    text = json.dumps(results, indent=1, allow_nan=False)
    files.write(path, text + "\n")
    print(f"Numbers: {path}")
    if args.docs:
        pages.refill(_PAGE, "matching", section)
        pages.keep(path, _PAGE)
        image = _PAGE.with_suffix(".png")
        files.write_figure(image, matching_report.figure(results))
        print(f"Page: {_PAGE}")
    if found := matching_report.faults(results):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
