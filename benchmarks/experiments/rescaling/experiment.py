"""Tuning at scale 1, then training from other seeds at every scale.

All methods start from the same weights: none has them normalized first, which
would undo the scale.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import jax
import numpy as np
from matplotlib.figure import Figure

from benchmarks import data, training
from benchmarks.experiments.tuning import TUNING_SEED, point, tune, tuned_to
from benchmarks.harness import pages
from benchmarks.harness.colours import DARK_GREY, look
from benchmarks.harness.figures import BEHIND, label_end
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import (
    Count,
    Counts,
    Positive,
    Positives,
    Share,
    one_of,
    some,
)
from benchmarks.harness.results import Content, Results
from benchmarks.optimizers import DEFAULT, TUNED, Tuned
from psi_optax.models import linen

FRONT = {"sgd": "SGD", "adamw": "AdamW", "psi_sgd": "psi_sgd"}
"""The methods in front of the figure, with their labels there."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment."""

    dataset: Annotated[str, one_of(data.NAMES)] = "digits"  # Data set.
    # Optimizers.
    optimizers: Annotated[tuple[str, ...], some(one_of(TUNED))] = DEFAULT
    # Factors of the initial filters.
    scales: Positives = (0.01, 0.1, 1.0, 10.0, 100.0)
    seeds: Count = 10  # Seeds, in tuning and in the final runs.
    epochs: Count = 20  # Epochs of each training.
    batch_size: Count = 64  # Examples in a batch.
    # Hidden units of each layer.
    widths: Counts = (64, 64)
    bn_epsilon: Positive = 1e-5  # Epsilon of batch normalization.
    bn_momentum: Share = 0.9  # Momentum of its running statistics.


def measure(settings: Settings, results: Results) -> None:
    """Tune every optimizer, and train with it at every scale."""
    full = data.load(settings.dataset)
    tuning = _Runs(settings, data.hold_out(full), TUNING_SEED)
    final = _Runs(settings, full, 0)
    steps = {
        name: len(TUNED[name].trials()) + len(settings.scales)
        for name in settings.optimizers
    }
    results.expect(sum(steps.values()))
    for name, count in steps.items():
        arguments = TUNED[name], tuning, final, settings.scales, results.tick
        results.part(name, partial(_measure, *arguments), count)


def scale_filters(variables: Any, groups: Any, factor: float) -> Any:
    """Multiply the weights of every scale group, and nothing else."""
    params = jax.tree.map(
        lambda group, leaf: leaf if group is None else factor * leaf,
        groups,
        variables["params"],
        is_leaf=lambda group: group is None,
    )
    return {**variables, "params": params}


class _Runs:
    """Training on one split, from one set of seeds."""

    def __init__(self, settings: Settings, split: data.Dataset, first: int):
        self.split, epsilon = split, settings.bn_epsilon
        options = {"epsilon": epsilon, "momentum": settings.bn_momentum}
        self.model = linen.MLP(settings.widths, split.num_classes, **options)
        images, seeds = split.train_images, range(first, first + settings.seeds)
        sizes = settings.batch_size, settings.epochs
        self.begin = partial(training.begin, self.model, images, seeds, *sizes)
        self.groups = training.kernel_groups(self.model, images).groups
        self.evaluate = training.make_evaluate(self.model, split)

    def compile(self, method: Tuned) -> Callable:
        """Return a function of scale, rate and decay: accuracies, losses."""
        train = training.make_train(self.model, method.build, self.split)

        def run(scale, *point):
            variables, batches = self.begin()
            variables = scale_filters(variables, self.groups, scale)
            return self.evaluate(train(variables, batches, *point))

        return run


def _measure(method, tuning, final, scales, tick):
    """Tune one optimizer at scale 1, then train with it at every scale."""
    tuned = tune(method, partial(tuning.compile(method), 1.0), tick)
    test, accuracies = final.compile(method), {}
    for scale in scales:
        accuracy, _ = test(scale, *point(tuned))
        accuracies[f"{scale:g}"] = np.asarray(accuracy, np.float64).tolist()
        tick()
    return {**tuned, "accuracy": accuracies}


def report(content: Content) -> str:
    """Return the table, in 80 columns, and a sentence that reads it."""
    settings, parts = content["settings"], content["parts"]
    rows, tuned = [["", *(f"x {x:g}" for x in settings["scales"])]], []
    for part in parts.values():
        label = part["label"].replace("weight decay", "decay")
        cells = [pages.spread(x, 1, "±") for x in _percent(part)]
        rows.append([label, *cells])
        tuned.append(f"{label}: {tuned_to(part, ('lr ', 'decay '))}")
    above = (
        f"Test accuracy (%) on {settings['dataset']} of a BatchNorm MLP whose"
        " initial filters are multiplied by a number: mean ± standard"
        f" deviation of {settings['seeds']} seeds, {settings['epochs']} epochs,"
        " cosine decay."
    )
    trials = sorted({len(part["trials"]) for part in parts.values()})
    below = (
        "All methods start from the same weights. Each was tuned without a"
        f" factor, on validation data, in {' or '.join(map(str, trials))}"
        f" trials; a star marks the edge of its grid. {'; '.join(tuned)}."
    )
    above, shown, below = map(pages.wrap, (above, _shown(parts), below))
    return "\n\n".join([above, pages.table(rows), shown, below])


def _percent(part):
    """Return accuracies by scale and seed."""
    return 100 * np.array(list(part["accuracy"].values()))


def _shown(parts):
    """Return by how much SGD and our methods depend on the scale."""
    found = [
        f"{part['label']} by {np.ptp(_percent(part).mean(1)):.1f}"
        for name, part in parts.items()
        if name == "sgd" or name.startswith("psi")
    ]
    *others, last = found or ["none was trained"]
    listed = f"{', '.join(others)} and {last}" if others else last
    return f"Over these scales the mean accuracies vary, in points: {listed}."


def figures(content: Content) -> dict[str, Figure]:
    """Draw test accuracy against the scale, few methods in front of the others.

    Bands are of one standard deviation. The figure is small, and its letters
    are large, to be read as a thumbnail.
    """
    settings, parts = content["settings"], content["parts"]
    drawn = Figure(figsize=(6, 3.6))
    axes, scales = drawn.subplots(), settings["scales"]
    for name in [x for x in FRONT if x in parts]:
        percent, style = _percent(parts[name]), look(name)
        mean, color = percent.mean(1), style["color"]
        spread = percent.std(1, ddof=int(percent.shape[1] > 1))
        axes.plot(scales, mean, linewidth=3, markersize=9, **style)
        band = {"color": color, "alpha": 0.15, "linewidth": 0}
        axes.fill_between(scales, mean - spread, mean + spread, **band)
        label_end(axes, mean[-1], FRONT[name], color, fontsize=15)
    others = sorted(parts.keys() - FRONT.keys())
    for name in others:
        axes.plot(scales, _percent(parts[name]).mean(1), **BEHIND)
    words = f"grey: {len(others)} other methods"
    style = {"color": DARK_GREY, "fontsize": 12}
    axes.text(0.3, 0.05, words, transform=axes.transAxes, **style)
    axes.set_xscale("log")
    axes.set_xticks(scales, [f"x {x:g}" for x in scales])
    axes.minorticks_off()
    axes.locator_params(axis="y", nbins=5)
    axes.tick_params(labelsize=12)
    axes.set_xlabel("scale of initial filters", fontsize=14)
    axes.set_ylabel(f"test accuracy on {settings['dataset']} (%)", fontsize=13)
    return {"rescaling": drawn}


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(
        optimizers=("sgd", "psi_sgd"), scales=(0.1, 1.0), seeds=2, epochs=1
    ),
    measure=measure,
    report=report,
    figures=figures,
    page="experiments/rescaling.md",
)
