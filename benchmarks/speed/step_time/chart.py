"""A bar chart of step times, with those of torch's libraries."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullLocator

from benchmarks.harness.colours import COLOURS

Rows = list[dict[str, Any]]

_COLOURS = {
    "psi_optax": COLOURS[6],
    "optax, or by hand": COLOURS[0],
    "libraries for torch": COLOURS[4],
}
_OURS, _OPTAX, _TORCH = _COLOURS

_HEIGHT = 0.21
"""Inches of a bar, with the gap to the next."""


def figure(rows: Rows, peers: Rows, device: str) -> Figure:
    """Draw ratios to SGD and to Adam, sorted, but not those baselines at 1."""
    bars = [{**row, "whose": _origin(row["optimizer"])} for row in rows]
    bars += [{**row, "whose": _TORCH} for row in peers]
    bars = [bar for bar in bars if bar["optimizer"] != bar["baseline"]]
    bars.sort(key=lambda bar: bar["ratio"])
    adam = [bar for bar in bars if "adam" in bar["baseline"].lower()]
    sgd = [bar for bar in bars if bar not in adam]
    lengths = [max(1, len(part)) for part in (sgd, adam)]
    size = 8, 1.8 + _HEIGHT * sum(lengths)
    drawn = Figure(figsize=size, layout="constrained")
    upper, lower = drawn.subplots(2, sharex=True, height_ratios=lengths)
    _draw(upper, sgd, "to SGD with momentum")
    _draw(lower, adam, "to Adam")
    about = "time of one step, as a ratio to the plain optimizer of the same"
    lower.set_xlabel(f"{about} library, on {device}", fontsize=9)
    shown = {bar["whose"] for bar in bars}
    handles = [
        Patch(color=_COLOURS[x], label=x) for x in _COLOURS if x in shown
    ]
    drawn.legend(handles=handles, loc="outside upper center", ncols=3)
    return drawn


def _origin(name: str) -> str:
    others = name.startswith("optax.") or "by hand" in name
    return _OPTAX if others else _OURS


def _draw(axes: Axes, part: Rows, title: str) -> None:
    """Draw bars from 1 on, on a logarithmic axis; the least ratio on top."""
    ratios = np.array([bar["ratio"] for bar in part])
    around = np.reshape([bar["quartiles"] for bar in part], (-1, 2)).T
    drawn = axes.barh(
        [bar["optimizer"] for bar in part],
        ratios - 1,
        left=1,
        height=0.7,
        color=[_COLOURS[bar["whose"]] for bar in part],
        xerr=np.abs(around - ratios),
        error_kw={"linewidth": 1, "capsize": 2},
    )
    texts = [f"{x:.2f}" if x < 10 else f"{x:.1f}" for x in ratios]
    axes.bar_label(drawn, texts, padding=5, fontsize=8)
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xscale("log", base=2)
    axes.tick_params("y", labelsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.1, y=0.01)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
