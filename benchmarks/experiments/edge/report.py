"""Table and figure of the experiment at the edge of stability."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.experiments.edge.methods import METHODS
from benchmarks.experiments.full_batch import warm_errors
from benchmarks.harness import pages
from benchmarks.harness.colours import DARK_GREY, look
from benchmarks.harness.figures import keys, panels
from benchmarks.harness.results import Content

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


def figures(content: Content) -> dict[str, Figure]:
    """Draw the medians of the ratios between two cold measurements.

    A panel is a method, a style of line is a rate.
    """
    settings = content["settings"]
    methods, multiples = settings["methods"], settings["multiples"]
    drawn, axes = panels((2, 3), 2.1, sharex=True, sharey=True)
    by_method = dict(zip(methods, axes.flat, strict=False))
    for name, multiple, run in runs(content):
        line = LINES[multiples.index(multiple) % len(LINES)]
        steps, ratio = _medians(settings, run)
        by_method[name].plot(steps, ratio, line, color=look(name)["color"])
    for name, panel in by_method.items():
        method = METHODS[name]
        panel.set_title(f"{method.label}, rate {method.rate:g}")
        panel.axhline(1, color=DARK_GREY, linewidth=1)
    for panel in axes.flat[len(methods) :]:
        panel.set_axis_off()
        panel.tick_params(labelbottom=False)
    labels = [f"rate x {x:g}" for x in multiples]
    axes[-1, -1].legend(handles=keys(labels, LINES), loc="center")
    drawn.supxlabel("step", fontsize=10)
    drawn.supylabel("top eigenvalue / threshold", fontsize=10)
    return {"edge": drawn}


def _medians(settings, run):
    """Return steps, and the medians of ratios in windows before them."""
    size, records = settings["check"], settings["check"] // settings["record"]
    found = np.median(ratios(run).reshape(-1, records), axis=1)
    return size * np.arange(1, len(found) + 1), found
