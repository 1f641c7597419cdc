"""A bar chart of step times, with those of torch's libraries."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullLocator

from benchmarks.report import COLOURS
from benchmarks.step_time_cases import ADAM, SGD
from benchmarks.step_time_report import origin

__all__ = ["figure"]

_COLOURS = {
    "psi_optax": COLOURS[6],
    "optax": COLOURS[0],
    "torch": COLOURS[4],
}

_LABELS = {
    "psi_optax": "psi_optax",
    "optax": "optax, or by hand",
    "torch": "libraries for torch",
}

_BAR = 0.21
"""Inches that a bar is high, with the gap to the next."""


def figure(
    rows: list[dict[str, Any]], peers: list[dict[str, Any]], device: str
) -> Figure:
    """Draw the ratios to SGD with momentum, and those to Adam.

    Args:
        rows: ours and optax's.
        peers: those of torch's libraries; they are ratios to torch's own.
        device: its name.

    Returns:
        A figure 8 inches wide, with a part for each baseline, sorted; its
        whiskers are quartiles. The baselines, at 1, are not drawn.
    """
    parts: dict[str, list] = {"SGD with momentum": [], "Adam": []}
    for row, whose in [
        *((row, origin(row["optimizer"])) for row in rows),
        *((row, "torch") for row in peers),
    ]:
        if row["optimizer"] != row["baseline"]:
            parts[_part(row["baseline"])].append((row, whose))
    lengths = [max(1, len(part)) for part in parts.values()]
    drawn = Figure(figsize=(8, 1.8 + _BAR * sum(lengths)), layout="constrained")
    axes = drawn.subplots(2, sharex=True, height_ratios=lengths)
    for place, (name, part) in zip(axes, parts.items(), strict=True):
        part.sort(key=lambda bar: bar[0]["ratio"])
        _draw(place, part)
        place.set_title(f"to {name}", fontsize=9, loc="left")
    axes[1].set_xlabel(
        "time of one step, as a ratio to the plain optimizer of the same"
        f" library, on {device}",
        fontsize=9,
    )
    handles = [
        Patch(color=_COLOURS[whose], label=label)
        for whose, label in _LABELS.items()
        if any(whose == other for part in parts.values() for _, other in part)
    ]
    drawn.legend(handles=handles, loc="outside upper center", ncols=3)
    return drawn


def _part(name: str) -> str:
    adam = name == ADAM or (name != SGD and "Adam" in name)
    return "Adam" if adam else "SGD with momentum"


def _draw(axes: Axes, part: list[tuple[dict[str, Any], str]]) -> None:
    """Bars from 1 to the ratio, on a logarithmic axis; the least on top."""
    axes.set_xscale("log", base=2)
    ratios = [row["ratio"] for row, _ in part]
    around = [row["quartiles"] for row, _ in part]
    axes.barh(
        range(len(part)),
        [ratio - 1 for ratio in ratios],
        left=1,
        height=0.7,
        color=[_COLOURS[whose] for _, whose in part],
        xerr=[
            [r - low for r, (low, _) in zip(ratios, around, strict=True)],
            [high - r for r, (_, high) in zip(ratios, around, strict=True)],
        ],
        error_kw={"linewidth": 1, "capsize": 2},
    )
    for index, (ratio, (_, high)) in enumerate(
        zip(ratios, around, strict=True)
    ):
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
