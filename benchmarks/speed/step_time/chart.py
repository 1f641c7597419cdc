"""A bar chart of step times, with those of torch's libraries."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullLocator

from benchmarks.harness.colours import COLOURS

Rows = list[dict[str, Any]]

_OURS, _OPTAX, _TORCH = "psi_optax", "optax, or by hand", "libraries for torch"
_COLOURS = {_OURS: COLOURS[6], _OPTAX: COLOURS[0], _TORCH: COLOURS[4]}

_HEIGHT = 0.21
"""Inches of a bar, with the gap to the next."""


def figure(rows: Rows, peers: Rows, device: str) -> Figure:
    """Draw the ratios to SGD with momentum, and those to Adam, sorted.

    Whiskers are quartiles. The baselines, at 1, are not drawn. Peers are ratios
    to torch's own optimizers.
    """
    bars = [{**row, "whose": _origin(row["optimizer"])} for row in rows]
    bars += [{**row, "whose": _TORCH} for row in peers]
    bars = [bar for bar in bars if bar["optimizer"] != bar["baseline"]]
    bars.sort(key=lambda bar: bar["ratio"])
    adam = [bar for bar in bars if "adam" in bar["baseline"].lower()]
    sgd = [bar for bar in bars if bar not in adam]
    lengths = [max(1, len(part)) for part in (sgd, adam)]
    size = 8, 1.8 + _HEIGHT * sum(lengths)
    drawn = Figure(figsize=size, layout="constrained")
    axes = drawn.subplots(2, sharex=True, height_ratios=lengths)
    _draw(axes[0], sgd, "to SGD with momentum")
    _draw(axes[1], adam, "to Adam")
    axes[1].set_xlabel(
        "time of one step, as a ratio to the plain optimizer of the same"
        f" library, on {device}",
        fontsize=9,
    )
    handles = [
        Patch(color=colour, label=whose)
        for whose, colour in _COLOURS.items()
        if whose in {bar["whose"] for bar in bars}
    ]
    drawn.legend(handles=handles, loc="outside upper center", ncols=3)
    return drawn


def _origin(name: str) -> str:
    others = name.startswith("optax.") or "by hand" in name
    return _OPTAX if others else _OURS


def _draw(axes: Axes, part: Rows, title: str) -> None:
    """Draw bars from 1 on, on a logarithmic axis; the least ratio on top."""
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xscale("log", base=2)
    ratios = np.array([bar["ratio"] for bar in part])
    around = np.reshape([bar["quartiles"] for bar in part], (-1, 2)).T
    axes.barh(
        range(len(part)),
        ratios - 1,
        left=1,
        height=0.7,
        color=[_COLOURS[bar["whose"]] for bar in part],
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
    names = [bar["optimizer"] for bar in part]
    axes.set_yticks(range(len(part)), names, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.1, y=0.01)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
