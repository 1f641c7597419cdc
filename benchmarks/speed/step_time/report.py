"""Tables of step times, and where they stand."""

from typing import Any

from matplotlib.figure import Figure

from benchmarks.harness import pages
from benchmarks.harness.results import Content
from benchmarks.speed.sets import SETS
from benchmarks.speed.step_time import chart

__all__ = ["cell", "duration", "figures", "report", "sections", "short_table"]

Row = dict[str, Any]

README = (
    "sgd, then renormalize by hand",
    "psi_sgd(momentum)",
    "psi(optax.sgd(momentum))",
    "optax.lars",
    "psi_adam",
    "psi(optax.adam)",
    "optax.lamb",
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
            peers_table(peers["rows"], peers["device"]),
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
    device = content["versions"]["device"]
    main = [row for row in part["rows"] if row["optimizer"] in README]
    return {
        ("choosing.md", "step time"): short_table(part["rows"], device),
        ("../README.md", "step time"): short_table(main, device),
    }


def table(rows: list[Row], device: str) -> str:
    """Return a table of all columns."""
    head = ["ratio", "to", "ms", "bytes", "of bandwidth", "state"]
    head += ["temporaries", "peak", "trace", "compile", "HLO"]
    return _table(device, head, rows)


def short_table(rows: list[Row], device: str) -> str:
    """Return a table of the columns by which one chooses."""
    head = ["ratio", "to", "bytes", "temporaries", "compile"]
    return _table(device, head, rows)


def peers_table(rows: list[Row], device: str) -> str:
    """Return a table of torch's libraries."""
    return _table(device, ["ratio", "to", "ms", "bytes"], rows)


def _table(device: str, head: list[str], rows: list[Row]) -> str:
    lines = [
        [f"`{row['optimizer']}`", *(_CELLS[column](row) for column in head)]
        for row in rows
    ]
    return pages.table([[f"one step on {device}", *head], *lines])


def cell(middle: float, around: list[float]) -> str:
    """Return a median and its quartiles.

    Examples:
        >>> cell(1.5, [1.25, 12.0])
        '1.50 (1.25 to 12.00)'
    """
    return "{:.2f} ({:.2f} to {:.2f})".format(middle, *around)


def duration(milliseconds: float) -> str:
    """Return three digits, or all there are before the point.

    Examples:
        >>> duration(1.2345), duration(9470.3)
        ('1.23', '9,470')
    """
    long = milliseconds >= 1000
    return f"{milliseconds:,.0f}" if long else f"{milliseconds:.3g}"


_CELLS = {
    "ratio": lambda row: cell(row["ratio"], row["quartiles"]),
    "to": lambda row: f"`{row['baseline']}`",
    "ms": lambda row: duration(row["milliseconds"]),
    "bytes": lambda row: f"{row['bytes_per_weight']:.0f}",
    "of bandwidth": lambda row: f"{100 * row['of_bandwidth']:.0f} %",
    "state": lambda row: f"{row['state']:.1f}",
    "temporaries": lambda row: f"{row['temporary_mb']:.0f} MB",
    "peak": lambda row: f"{row['peak_mb']:.0f} MB",
    "trace": lambda row: f"{row['trace_ratio']:.1f}",
    "compile": lambda row: f"{row['compile_ratio']:.1f}",
    "HLO": lambda row: f"{row['instructions']}",
}
