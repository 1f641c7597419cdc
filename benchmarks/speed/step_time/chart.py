"""A bar chart of step times, with those of torch's libraries."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullLocator

from benchmarks.harness.colours import COLOURS

__all__ = ["figure"]

Bars = list[tuple[dict[str, Any], str]]
"""Rows, and whose each is."""

_COLOURS = {
    "psi_optax": COLOURS[6],
    "optax, or by hand": COLOURS[0],
    "libraries for torch": COLOURS[4],
}

_HEIGHT = 0.21
"""Inches of a bar, with the gap to the next."""


def figure(
    rows: list[dict[str, Any]], peers: list[dict[str, Any]], device: str
) -> Figure:
    """Draw the ratios to SGD with momentum, and those to Adam, sorted.

    Whiskers are quartiles. The baselines, at 1, are not drawn. Peers are ratios
    to torch's own optimizers.
    """
    bars = [(row, _origin(row["optimizer"])) for row in rows]
    bars += [(row, "libraries for torch") for row in peers]
    parts: dict[str, Bars] = {"SGD with momentum": [], "Adam": []}
    for row, whose in sorted(bars, key=lambda bar: bar[0]["ratio"]):
        base = row["baseline"]
        if row["optimizer"] != base:
            adam = "adam" in base.lower()
            parts["Adam" if adam else "SGD with momentum"].append((row, whose))
    lengths = [max(1, len(part)) for part in parts.values()]
    size = 8, 1.8 + _HEIGHT * sum(lengths)
    drawn = Figure(figsize=size, layout="constrained")
    axes = drawn.subplots(2, sharex=True, height_ratios=lengths)
    for place, (name, part) in zip(axes, parts.items(), strict=True):
        _draw(place, part)
        place.set_title(f"to {name}", fontsize=9, loc="left")
    axes[1].set_xlabel(
        "time of one step, as a ratio to the plain optimizer of the same"
        f" library, on {device}",
        fontsize=9,
    )
    there = {whose for _, whose in bars}
    handles = [
        Patch(color=colour, label=whose)
        for whose, colour in _COLOURS.items()
        if whose in there
    ]
    drawn.legend(handles=handles, loc="outside upper center", ncols=3)
    return drawn


def _origin(name: str) -> str:
    others = name.startswith("optax.") or "by hand" in name
    return "optax, or by hand" if others else "psi_optax"


def _draw(axes: Axes, part: Bars) -> None:
    """Draw bars from 1 to the ratio, on a logarithmic axis; the least on top."""
    axes.set_xscale("log", base=2)
    ratios = np.array([row["ratio"] for row, _ in part])
    around = np.reshape([row["quartiles"] for row, _ in part], (-1, 2)).T
    axes.barh(
        range(len(part)),
        ratios - 1,
        left=1,
        height=0.7,
        color=[_COLOURS[whose] for _, whose in part],
        xerr=np.abs(around - ratios),
        error_kw={"linewidth": 1, "capsize": 2},
    )
    for index, (ratio, high) in enumerate(zip(ratios, around[1], strict=True)):
        axes.annotate(
            f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}",
            (max(1.0, high), index),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    names = [row["optimizer"] for row, _ in part]
    axes.set_yticks(range(len(part)), names, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.1, y=0.01)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
