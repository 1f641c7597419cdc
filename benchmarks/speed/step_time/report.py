"""Tables and a bar chart of step times, and where they stand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullLocator

from benchmarks.harness import pages
from benchmarks.harness.colours import COLOURS
from benchmarks.harness.results import Content
from benchmarks.speed.sets import SETS

Row = dict[str, Any]

IN_README = (
    *("sgd, then renormalize by hand", "psi_sgd(momentum)"),
    *("psi(optax.sgd(momentum))", "optax.lars"),
    *("psi_adam", "psi(optax.adam)", "optax.lamb"),
)


def report(content: Content) -> str:
    """Return a heading and tables for each set."""
    versions, texts = content["versions"], []
    used = "{cores} cores, JAX {jax}, optax {optax}".format(**versions)
    for name in SETS:
        if part := content["parts"].get(name):
            speeds = [
                f"{x}: {s:.3g} GB/s" for x, s in part["bandwidth"].items()
            ]
            about = f"{part['weights']:,} weights in {part['dtype']}."
            about = pages.wrap(f"{about} {'; '.join(speeds)}. {used}.")
            rows = table(part["rows"], versions["device"])
            texts += [f"### `{name}`", about, rows, *_to_torch(part["peers"])]
    return "\n\n".join(texts)


def _to_torch(peers: list[Row]) -> list[str]:
    return [
        "To torch's own, in a process of their own, torch"
        f" {part['torch']}:\n\n{table(part['rows'], part['device'], PEERS)}"
        for part in peers
    ]


def sections(content: Content) -> dict[tuple[str, str], str]:
    """Return short tables of ResNet-50 for other pages, if it was timed."""
    part = content["parts"].get("resnet50")
    if part is None:
        return {}
    rows, device = part["rows"], content["versions"]["device"]
    some = [row for row in rows if row["optimizer"] in IN_README]
    return {
        ("choosing.md", "step time"): table(rows, device, SHORT),
        ("../README.md", "step time"): table(some, device, SHORT),
    }


def cell(row: Row) -> str:
    """Return a ratio and its quartiles.

    Examples:
        >>> cell({"ratio": 1.5, "quartiles": [1.25, 12.0]})
        '1.50 (1.25 to 12.00)'
    """
    return "{:.2f} ({:.2f} to {:.2f})".format(row["ratio"], *row["quartiles"])


def duration(row: Row) -> str:
    """Return milliseconds: three digits, or all before the point.

    Examples:
        >>> duration({"milliseconds": 1.2345}), duration({"milliseconds": 9470})
        ('1.23', '9,470')
    """
    time = row["milliseconds"]
    return f"{time:,.0f}" if time >= 1000 else f"{time:.3g}"


_CELLS = {
    "ratio": cell,
    "to": lambda row: f"`{row['baseline']}`",
    "ms": duration,
    "bytes": lambda row: f"{row['bytes_per_weight']:.0f}",
    "of bandwidth": lambda row: f"{100 * row['of_bandwidth']:.0f} %",
    "state": lambda row: f"{row['state']:.1f}",
    "temporaries": lambda row: f"{row['temporary_mb']:.0f} MB",
    "peak": lambda row: f"{row['peak_mb']:.0f} MB",
    "trace": lambda row: f"{row['trace_ratio']:.1f}",
    "compile": lambda row: f"{row['compile_ratio']:.1f}",
    "HLO": lambda row: str(row["instructions"]),
}

SHORT = ("ratio", "to", "bytes", "temporaries", "compile")
PEERS = ("ratio", "to", "ms", "bytes")


def table(
    rows: list[Row], device: str, columns: Sequence[str] = tuple(_CELLS)
) -> str:
    """Return a table with a line for each row."""
    lines = [
        [f"`{row['optimizer']}`", *(_CELLS[column](row) for column in columns)]
        for row in rows
    ]
    return pages.table([[f"one step on {device}", *columns], *lines])


_COLOURS = {
    "psi_optax": COLOURS[6],
    "optax, or by hand": COLOURS[0],
    "libraries for torch": COLOURS[4],
}
_OURS, _OPTAX, _TORCH = _COLOURS

_HEIGHT = 0.21
"""Inches of a bar, with the gap to the next."""


def figures(content: Content) -> dict[str, Figure]:
    """Draw ResNet-50's ratios to SGD and to Adam, but not those baselines."""
    part = content["parts"].get("resnet50")
    if part is None:
        return {}
    bars = [{**row, "whose": _origin(row["optimizer"])} for row in part["rows"]]
    for peers in part["peers"]:
        bars += [{**row, "whose": _TORCH} for row in peers["rows"]]
    bars = [bar for bar in bars if bar["optimizer"] != bar["baseline"]]
    bars.sort(key=lambda bar: bar["ratio"])
    return {"step-time": _chart(bars, content["versions"]["device"])}


def _chart(bars: list[Row], device: str) -> Figure:
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


def _draw(axes: Axes, part: list[Row], title: str) -> None:
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
