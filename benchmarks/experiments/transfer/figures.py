"""Figures: the best rate against each factor, and losses against rates."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.experiments.transfer.choices import moves, problems, row
from benchmarks.experiments.transfer.curves import best_rate
from benchmarks.experiments.transfer.methods import METHODS, is_trained
from benchmarks.experiments.transfer.points import (
    BASE,
    FACTORS,
    Point,
    values,
)
from benchmarks.experiments.transfer.problems import LABELS
from benchmarks.harness.colours import DARK_GREY, look
from benchmarks.harness.figures import legend_below, panels
from benchmarks.harness.results import Content

SHOWN = 0.3
"""Losses above the lowest one of a method that are shown."""

LARGEST_FALL = 4
"""Octaves below the base's best rate that are shown."""


def figures(content: Content) -> dict[str, Figure]:
    """Draw the moves of all methods, and the losses of each problem."""
    losses = {f"transfer-{x}": _losses(content, x) for x in problems(content)}
    return {"transfer": _moves(content), **losses}


def _moves(content: Content) -> Figure:
    """Draw octaves against each factor: two rows for each problem."""
    found = problems(content)
    drawn, axes = panels((2 * len(found), 3), 2.3)
    cells = iter(axes.flat)
    for problem in found:
        for factor, title in FACTORS.items():
            panel = next(cells)
            _draw_moves(panel, content, problem, factor)
            panel.set_title(title)
    for beside, name in zip(axes, np.repeat(found, 2), strict=True):
        beside[0].set_ylabel(f"{LABELS[name]}\noctaves of the best rate")
    legend_below(drawn, 4)
    return drawn


def _draw_moves(axes: Any, content: Content, problem: str, factor: str) -> None:
    found = values(content["settings"])[factor]
    x = np.array([1, *found])
    order = np.argsort(x)
    for name in _trained(content, factor):
        moved = moves(content, problem, name, factor, found)
        y = np.array([0.0, *(m.octaves for m in moved)])
        label = METHODS[name].label
        axes.plot(x[order], y[order], label=label, **look(name))
    # Moves of less than an octave are drawn small.
    low, high = axes.get_ylim()
    axes.set_ylim(max(min(low, -1), -LARGEST_FALL), max(high, 1))
    axes.set_xscale("log", base=2)
    axes.set_xticks(x[order], [f"{v:g}" for v in x[order]])


def _trained(content: Content, factor: str) -> list[str]:
    """Return the methods with rows over a factor."""
    asked = content["settings"]["methods"]
    return [x for x in METHODS if x in asked and is_trained(x, factor)]


def _losses(content: Content, problem: str) -> Figure:
    """Draw the losses at the last value of each factor, over rates.

    Rates are relative to the best one of the base.
    """
    drawn, axes = panels((2, 3), 2.4, sharex=True, sharey=True)
    last = values(content["settings"])
    for panel, (factor, title) in zip(axes.flat, FACTORS.items(), strict=True):
        point = Point(factor, last[factor][-1])
        for name in _trained(content, factor):
            _draw_losses(panel, content, problem, name, point)
        panel.axvline(0, color=DARK_GREY, linewidth=1)
        panel.set_title(f"{title} x {point.value:g}")
    axes[0, 0].set(xlim=(-4, 4), ylim=(-0.01, SHOWN))
    for panel in axes[-1]:
        panel.set_xlabel("octaves from the base's best")
    for panel in axes[:, 0]:
        panel.set_ylabel("loss over the lowest")
    drawn.suptitle(LABELS[problem], fontsize=11)
    legend_below(drawn, 4)
    return drawn


def _draw_losses(
    axes: Any, content: Content, problem: str, name: str, point: Point
) -> None:
    """Draw the finite losses of a method, less the lowest one."""
    best = best_rate(row(content, problem, name, BASE))
    at = row(content, problem, name, point)
    kept = np.isfinite(at.means)
    x, y = at.x[kept] - best, at.means[kept] - at.means.min()
    axes.plot(x, y, label=METHODS[name].label, **look(name))
