"""Table and figure of the experiment at the edge of stability."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.experiments.edge.methods import METHODS
from benchmarks.experiments.full_batch import warm_errors
from benchmarks.harness import pages
from benchmarks.harness.colours import COLOURS
from benchmarks.harness.figures import styled
from benchmarks.harness.results import Content
from psi_optax.landscape import plot_edge

LINES = (":", "--", "-")

Run = dict[str, Any]


def ratios(run: Run) -> np.ndarray:
    """Return top eigenvalues over their threshold, NaN where not finite."""
    return np.array(run["warm"], float) / run["threshold"]


def runs(content: Content) -> Iterator[tuple[str, float, Run]]:
    """Yield the method's name, the multiple and the run."""
    settings = content["settings"]
    for name in settings["methods"]:
        for multiple in settings["multiples"]:
            yield name, multiple, content["parts"][f"{name}, {multiple:g}"]


def report(content: Content) -> str:
    """Return the table, with a row for each optimizer and rate."""
    head = (
        *("", "learning rate", "threshold", "ratio, last quarter"),
        *("largest ratio", "steps that raise the loss, %", "loss"),
        *("warm error, median, %", "- largest, %"),
    )
    rows = [head]
    for name, _, run in runs(content):
        ratio, errors = ratios(run), 100 * warm_errors(run["warm"], run["cold"])
        last = ratio[3 * len(ratio) // 4 :]
        cells = (
            *(f"{run['rate']:g}", f"{run['threshold']:.4g}"),
            *(pages.spread(last, 3), f"{np.max(ratio):.2f}"),
            *(f"{100 * run['rises']:.1f}", _loss(run)),
            *(f"{np.median(errors):.2g}", f"{np.max(errors):.2g}"),
        )
        rows.append((METHODS[name].label, *cells))
    return f"{pages.settings(content)}\n\n{pages.table(rows, right=True)}"


def _loss(run):
    last = run["loss"][-1]
    return "diverged" if last is None else f"{last:.4f}"


@styled
def figures(content: Content) -> dict[str, Figure]:
    """Draw the medians of the ratios between two cold measurements.

    A colour is a method, a style of line is a rate.
    """
    found, settings = list(runs(content)), content["settings"]
    values = np.array([run["warm"] for *_, run in found], float)
    records = settings["check"] // settings["record"]
    medians = np.median(values.reshape(len(found), -1, records), axis=2)
    steps = settings["check"] * np.arange(1, medians.shape[1] + 1)
    thresholds = np.array([run["threshold"] for *_, run in found])
    figure = plot_edge(medians.T, thresholds, steps=steps)
    [axes] = figure.axes
    for line, (name, multiple, run) in zip(axes.lines, found, strict=False):
        line.set(
            color=COLOURS[list(METHODS).index(name)],
            linestyle=LINES[settings["multiples"].index(multiple) % 3],
            label=f"{METHODS[name].label}, {run['rate']:g}",
        )
    figure.set_size_inches(9, 4.5)
    figure.legend(loc="outside right center")
    return {"edge": figure}
