"""Regrets at the default and after tuning, their tables and figure."""

from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from benchmarks.experiments.defaults.methods import METHODS
from benchmarks.experiments.tuning import is_at_edge
from benchmarks.harness import pages
from benchmarks.harness.colours import DARK_GREY, LOOKS, look
from benchmarks.harness.figures import legend_below, panels
from benchmarks.harness.results import Content


class Regrets(NamedTuple):
    """Test losses over that of the best tuned method of each task.

    Attributes:
        default: of shape `(methods, tasks)`, infinite where a run diverged.
        tuned: the same at the best factors.
        chosen: these factors, of the lowest validation loss.
        accuracy: at the default, in percent.
    """

    default: np.ndarray
    tuned: np.ndarray
    chosen: np.ndarray
    accuracy: np.ndarray


def regrets(content: Content) -> Regrets:
    """Return the regrets of all methods on all tasks."""
    settings = content["settings"]
    factors = np.array(settings["factors"])
    one = settings["factors"].index(1.0)
    validation, test, accuracy = (
        _means(content, kind) for kind in ("validation", "test", "accuracy")
    )
    best = validation.argmin(-1)
    tuned = np.take_along_axis(test, best[..., None], -1)[..., 0]
    # The best method is chosen by validation losses too.
    winners = validation.min(-1).argmin(0)
    least = tuned[winners, np.arange(len(winners))]
    return Regrets(
        test[..., one] - least,
        tuned - least,
        factors[best],
        100 * accuracy[..., one],
    )


def _means(content: Content, kind: str) -> np.ndarray:
    """Return means over seeds, of shape `(methods, tasks, factors)`."""
    settings, parts = content["settings"], content["parts"]
    values = np.array(
        [
            [parts[f"{task}/{name}"][kind] for task in settings["tasks"]]
            for name in settings["methods"]
        ],
        float,
    )
    return np.where(np.isnan(values), np.inf, values).mean(-1)


def report(content: Content) -> str:
    """Return the settings and tables of regrets and accuracies."""
    settings, found = content["settings"], regrets(content)
    labels = [METHODS[name].label for name in settings["methods"]]
    head = [*settings["tasks"], "mean", "worst"]
    default = [["regret at the default, nats", *head]]
    tuned = [["regret when tuned (factor)", *head]]
    accuracy = [["accuracy at the default, %", *settings["tasks"]]]
    for index, label in enumerate(labels):
        default.append([label, *_cells(found.default[index])])
        cells = _cells(found.tuned[index])
        chosen = (_factor(settings, x) for x in found.chosen[index])
        with_factor = [
            f"{x} ({y})" for x, y in zip(cells[:-2], chosen, strict=True)
        ]
        tuned.append([label, *with_factor, *cells[-2:]])
        accuracy.append([label, *(f"{x:.1f}" for x in found.accuracy[index])])
    tables = [pages.table(x, right=True) for x in (default, tuned, accuracy)]
    return "\n\n".join([pages.settings(content), *tables])


def _cells(values: np.ndarray) -> list[str]:
    """Return values with their mean and largest."""
    several = [*values, values.mean(), values.max()]
    return ["diverged" if np.isinf(x) else f"{x:.3f}" for x in several]


def _factor(settings: dict[str, Any], factor: float) -> str:
    return f"x {factor:g}{'★' * is_at_edge(factor, settings['factors'])}"


def figures(content: Content) -> dict[str, Figure]:
    """Draw the regrets at the default, a row of points for each method."""
    settings, found = content["settings"], regrets(content)
    methods = settings["methods"]
    drawn, [[axes]] = panels((1, 1), 1.3 + 0.4 * len(methods))
    places, tasks = np.arange(len(methods)), settings["tasks"]
    for task, values, shape in zip(tasks, found.default.T, LOOKS, strict=False):
        options = {"marker": shape["marker"], "color": DARK_GREY, "label": task}
        options |= {"linestyle": "", "fillstyle": "none", "clip_on": False}
        axes.plot(values, places, **options)
    finite = np.where(np.isinf(found.default), np.nan, found.default)
    for name, mean, place in zip(methods, finite.mean(1), places, strict=True):
        bar = {"color": look(name)["color"], "markeredgewidth": 4}
        axes.plot(mean, place, "|", markersize=17, **bar)
    axes.plot([], [], "k|", markersize=12, markeredgewidth=4, label="mean")
    axes.set_yticks(places, [METHODS[name].label for name in methods])
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=0.01)
    axes.set_xlabel("test loss over that of the best tuned method (nats)")
    legend_below(drawn, 4)
    return {"defaults": drawn}
