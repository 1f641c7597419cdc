"""Figures: the best rate against each factor, and losses against rates."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.experiments.transfer.choices import moves, problems, row
from benchmarks.experiments.transfer.methods import METHODS, MUP, is_trained
from benchmarks.experiments.transfer.points import (
    BASE,
    FACTORS,
    Point,
    values,
)
from benchmarks.experiments.transfer.problems import LABELS
from benchmarks.harness.colours import COLOURS, MARKERS
from benchmarks.harness.figures import styled
from benchmarks.harness.results import Content

SHOWN = 0.5
"""Losses above the lowest one of a panel that are shown."""


def figures(content: Content) -> dict[str, Figure]:
    """Draw the moves of all methods, and the losses of each problem."""
    losses = {f"transfer-{x}": _losses(content, x) for x in problems(content)}
    return {"transfer": _moves(content), **losses}


@styled
def _moves(content: Content) -> Figure:
    """Draw octaves against each factor: a row of panels for each problem."""
    found = problems(content)
    drawn = Figure(figsize=(14, 2.8 * len(found) + 0.6))
    options: Any = {"squeeze": False, "sharex": "col"}
    panels = drawn.subplots(len(found), len(FACTORS), **options)
    for axes_row, problem in zip(panels, found, strict=True):
        axes_row[0].set_ylabel(f"{LABELS[problem]}\noctaves of the best rate")
        for axes, factor in zip(axes_row, FACTORS, strict=True):
            _draw_moves(axes, content, problem, factor)
    for axes, title in zip(panels[0], FACTORS.values(), strict=True):
        axes.set_title(title)
    lines = panels[0, 0].get_legend_handles_labels()
    drawn.legend(*lines, loc="outside lower center", ncols=8)
    return drawn


def _draw_moves(axes: Any, content: Content, problem: str, factor: str) -> None:
    found = values(content["settings"])[factor]
    x = np.array([1, *found])
    order = np.argsort(x)
    for index, name in enumerate(METHODS):
        asked = name in content["settings"]["methods"]
        if not (asked and is_trained(name, factor)):
            continue
        moved = moves(content, problem, name, factor, found)
        y = np.array([0.0, *(m.octaves for m in moved)])
        style = {"color": COLOURS[index], "marker": MARKERS[index]}
        label = METHODS[name].label
        axes.plot(x[order], y[order], label=label, markersize=4, **style)
    # Moves of less than an octave are drawn small.
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -1), max(high, 1))
    axes.set_xscale("log", base=2)
    axes.set_xticks(x[order], [f"{v:g}" for v in x[order]])


def _draw_losses(
    axes: Any, content: Content, problem: str, name: str, point: Point
) -> None:
    """Draw the finite losses that are near the lowest one."""
    shown, lowest = {"base": BASE, "factor": point}, np.inf
    for index, (label, where) in enumerate(shown.items()):
        at = row(content, problem, name, where)
        kept = np.isfinite(at.means)
        style = {"color": COLOURS[6 * index], "marker": MARKERS[index]}
        x, means = at.x[kept], at.means[kept]
        axes.plot(x, means, label=label, markersize=3, **style)
        lowest = min(lowest, at.means.min())
    if np.isfinite(lowest):
        axes.set_ylim(lowest - 0.03, lowest + SHOWN)
    axes.tick_params(labelsize=7)


@styled
def _losses(content: Content, problem: str) -> Figure:
    """Draw validation losses of the base and at the last value of a factor."""
    names = [x for x in content["settings"]["methods"] if x != MUP]
    shape = len(FACTORS), len(names)
    drawn = Figure(figsize=(1.9 * shape[1] + 1, 1.6 * shape[0] + 0.8))
    options: Any = {"squeeze": False, "sharex": "col"}
    panels = drawn.subplots(*shape, **options)
    for axes_row, factor in zip(panels, FACTORS, strict=True):
        last = values(content["settings"])[factor][-1]
        axes_row[0].set_ylabel(f"{FACTORS[factor]}\nx {last:g}", fontsize=8)
        for axes, name in zip(axes_row, names, strict=True):
            _draw_losses(axes, content, problem, name, Point(factor, last))
    for axes, name in zip(panels[0], names, strict=True):
        axes.set_title(METHODS[name].label, fontsize=9)
    for axes in panels[-1]:
        axes.set_xlabel("log2 of the rate", fontsize=8)
    drawn.supylabel(f"validation loss, {LABELS[problem]}", fontsize=9)
    lines = panels[0, 0].get_legend_handles_labels()
    drawn.legend(*lines, loc="outside lower center", ncols=2)
    return drawn
