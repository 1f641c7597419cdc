"""Tables of step times, and where they stand."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks.harness import pages
from benchmarks.harness.results import Content
from benchmarks.speed.sets import SETS
from benchmarks.speed.step_time import chart

Row = dict[str, Any]

IN_README = (
    *("sgd, then renormalize by hand", "psi_sgd(momentum)"),
    *("psi(optax.sgd(momentum))", "optax.lars"),
    *("psi_adam", "psi(optax.adam)", "optax.lamb"),
)


def report(content: Content) -> str:
    """Return a heading and tables for each set."""
    texts = []
    for name in SETS:
        if part := content["parts"].get(name):
            texts += [f"### `{name}`", *_tables(part, content["versions"])]
    return "\n\n".join(texts)


def _tables(part: Row, versions: dict[str, Any]) -> list[str]:
    speeds = "; ".join(
        f"{name}: {speed:.3g} GB/s" for name, speed in part["bandwidth"].items()
    )
    about = (
        f"{part['weights']:,} weights in {part['dtype']}. {speeds}."
        f" {versions['cores']} cores, JAX {versions['jax']}, optax"
        f" {versions['optax']}."
    )
    texts = [pages.wrap(about), table(part["rows"], versions["device"])]
    for peers in part["peers"]:
        version = f"torch {peers['torch']}"
        texts += [
            f"To torch's own, in a process of their own, {version}:",
            table(peers["rows"], peers["device"], PEERS),
        ]
    return texts


def figures(content: Content) -> dict[str, Figure]:
    """Draw the chart of ResNet-50, if it was timed."""
    part = content["parts"].get("resnet50")
    if part is None:
        return {}
    peers = [row for each in part["peers"] for row in each["rows"]]
    device = content["versions"]["device"]
    return {"step-time": chart.figure(part["rows"], peers, device)}


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
    "HLO": lambda row: f"{row['instructions']}",
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
