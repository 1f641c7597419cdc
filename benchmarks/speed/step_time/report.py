"""Tables of step times, and where they stand."""

from collections.abc import Collection
from typing import Any

from benchmarks.harness import pages
from benchmarks.harness.results import Content
from benchmarks.speed.sets import SETS
from benchmarks.speed.step_time.cases import CASES, FAMILY, MAIN

Row = dict[str, Any]

SHOWN = ("resnet50", "vit_b16", "gpt_124m", "gpt_124m_bf16", "tiny")
"""The sets on the page."""

CPU, ELAPSED = "CPU time", "elapsed time"

FULL = ("bytes", "temporaries", "trace", "compile")
LEAST = ("bytes", "least")
SHORT = ("bytes", "temporaries", "compile")


def report(content: Content) -> str:
    """Return the tables of sets with the family, and one of all others."""
    parts = {x: content["parts"][x] for x in SETS if x in content["parts"]}
    texts, clock = [_about(content["versions"])], _clock(content)
    for name in [x for x in parts if SETS[x].family]:
        for names, columns in ((MAIN, FULL), (FAMILY, LEAST)):
            if rows := _some(parts[name], names):
                texts.append(table(rows, f"`{name}`", clock, *columns))
    if others := {x: parts[x] for x in parts if not SETS[x].family}:
        texts.append(across_sets(others, clock))
    return "\n\n".join(texts)


def _about(versions: dict[str, Any]) -> str:
    return "{device}, {cores} cores, JAX {jax}, optax {optax}.".format(
        **versions
    )


def _clock(content: Content) -> str:
    """Return the column of ratios: CPU time waits for no accelerator."""
    return CPU if content["versions"]["platform"] == "cpu" else ELAPSED


def sections(content: Content) -> dict[tuple[str, str], str]:
    """Return the shares of training steps, and the tables of other pages."""
    parts, found = content["parts"], {}
    if "training" in parts:
        found["step-time.md", "training"] = shares(parts["training"])
    if part := parts.get("resnet50"):
        rows, columns = part["rows"], (_clock(content), *SHORT)
        found["choosing.md", "step time"] = table(rows, "`resnet50`", *columns)
    return found


def _some(part: Row, names: Collection[str]) -> list[Row]:
    return [row for row in part["rows"] if row["optimizer"] in names]


def cell(row: Row, clock: str = CPU) -> str:
    """Return a ratio of times and its quartiles; of a baseline one.

    Examples:
        >>> times = {"ratio": 1.5, "quartiles": [1.25, 12.0]}
        >>> cell({"optimizer": "x", "baseline": "y", "cpu": times})
        '1.50 (1.25 to 12.00)'
    """
    if _is_baseline(row):
        return "1"
    times = row["cpu" if clock == CPU else "wall"]
    return "{:.2f} ({:.2f} to {:.2f})".format(
        times["ratio"], *times["quartiles"]
    )


_CELLS = {
    CPU: cell,
    ELAPSED: lambda row: cell(row, ELAPSED),
    "bytes": lambda row: f"{row['bytes']['ordinary']:.0f}",
    "least": lambda row: f"{row['bytes']['least']:.0f}",
    "temporaries": lambda row: f"{row['temporary_mb']:.0f} MB",
    "trace": lambda row: f"{row['trace_ratio']:.1f}",
    "compile": lambda row: f"{row['compile_ratio']:.1f}",
}


def _is_baseline(row: Row) -> bool:
    return row["optimizer"] == row["baseline"]


def table(rows: list[Row], head: str, *columns: str) -> str:
    """Return a table with a line for each row."""
    lines = [
        [f"`{row['optimizer']}`", *(_CELLS[column](row) for column in columns)]
        for row in rows
    ]
    return pages.table([[head, *columns], *lines])


def across_sets(parts: dict[str, Row], clock: str) -> str:
    """Return a table of ratios: a line an optimizer, a column a set.

    The last column has the least and the largest ratio of compilation.
    """
    rows = [row for part in parts.values() for row in part["rows"]]
    timed = {row["optimizer"] for row in rows if not _is_baseline(row)}
    lines = [_line(x, parts, clock) for x in CASES if x in timed]
    return pages.table([[clock, *(f"`{x}`" for x in parts), "compile"], *lines])


def _line(optimizer: str, parts: dict[str, Row], clock: str) -> list[str]:
    rows = [_some(part, [optimizer]) for part in parts.values()]
    cells = [_CELLS[clock](row[0]) if row else "" for row in rows]
    ratios = [row[0]["compile_ratio"] for row in rows if row]
    compiling = f"{min(ratios):.1f} to {max(ratios):.1f}"
    return [f"`{optimizer}`", *cells, compiling]


def shares(networks: dict[str, dict[str, Row]]) -> str:
    """Return a sentence on the optimizers' shares for each network."""
    texts = []
    for name, found in networks.items():
        each = [f"`{x}` {100 * y['share']:.2g} %" for x, y in found.items()]
        texts.append(f"On `{name}` it is: {', '.join(each)}.")
    return pages.wrap(" ".join(texts))
