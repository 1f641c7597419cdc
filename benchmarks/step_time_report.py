"""What the step times come to: rows of numbers, and tables of them."""

import statistics
from typing import Any

from benchmarks import pages
from benchmarks.step_time_cases import baseline
from benchmarks.step_time_steps import Case, Compilation, size
from benchmarks.step_time_turns import quartiles

__all__ = [
    "AXPY",
    "COPY",
    "bandwidths",
    "cell",
    "duration",
    "origin",
    "peers_table",
    "report",
    "section",
    "short_table",
    "table",
]

Row = dict[str, Any]

AXPY, COPY = "w + 0.01 g, in place", "a copy"
"""What every step is held to: two arrays read, one written; one and one."""

_MOVED = {AXPY: 3, COPY: 2}


def bandwidths(
    seconds: dict[str, list[float]], parameters: int
) -> dict[str, float]:
    """What the yardsticks move, in GB/s.

    Args:
        seconds: a list for each yardstick, among others.
        parameters: the bytes of all parameters.

    Examples:
        >>> bandwidths({AXPY: [0.5, 0.25, 2.0], COPY: [1.0]}, 10**9)
        {'w + 0.01 g, in place': 6.0, 'a copy': 2.0}
    """
    return {
        name: arrays * parameters / 1e9 / statistics.median(seconds[name])
        for name, arrays in _MOVED.items()
    }


def report(
    cases: dict[str, Case],
    compilations: dict[str, Compilation],
    seconds: dict[str, list[float]],
) -> list[Row]:
    """One row a case, the yardsticks left out.

    Args:
        cases: among them both yardsticks, and the baseline of each other.
        compilations: of every case.
        seconds: per step of every case, a figure for each turn.
    """
    parameters = size(cases[AXPY].params)
    speeds = bandwidths(seconds, parameters)
    fastest = max(speeds, key=lambda name: speeds[name])
    rows = []
    for name in [name for name in cases if name not in _MOVED]:
        base, case = baseline(name), cases[name]
        low, middle, high = quartiles(seconds[name], seconds[base])
        _, lengths, _ = quartiles(seconds[name], seconds[AXPY])
        mine, theirs = compilations[name], compilations[base]
        state = size(case.state) / parameters
        # Gradients are read; parameters and state are read and written.
        least = 3 + 2 * state
        _, beside, _ = quartiles(seconds[fastest], seconds[name])
        width = parameters / sum(w.size for w in case.params.values())
        rows.append(
            {
                "optimizer": name,
                "baseline": base,
                "ratio": middle,
                "quartiles": [low, high],
                "milliseconds": 1e3 * statistics.median(seconds[name]),
                "bytes_per_weight": 3 * width * lengths,
                "of_bandwidth": least / _MOVED[fastest] * beside,
                "state": state,
                "trace_ratio": mine.trace_s / theirs.trace_s,
                "compile_ratio": mine.compile_s / theirs.compile_s,
                **mine._asdict(),
            }
        )
    return rows


def origin(name: str) -> str:
    """Whose a case is, by its name: "psi_optax", "optax" or "torch".

    Examples:
        >>> origin("optax.lars"), origin("sgd, then renormalize by hand")
        ('optax', 'optax')
        >>> origin("psi(optax.adam)"), origin("sgd, then retract")
        ('psi_optax', 'psi_optax')
    """
    others = name.startswith("optax.") or "by hand" in name
    return "optax" if others else "psi_optax"


def table(rows: list[Row], device: str) -> str:
    """All columns, in Markdown."""
    head = [f"one step on {device}", "ratio", "to", "ms", "bytes"]
    head += ["of bandwidth", "state", "temporaries", "peak"]
    lines = [
        [
            *_compared(row),
            duration(row["milliseconds"]),
            f"{row['bytes_per_weight']:.0f}",
            f"{100 * row['of_bandwidth']:.0f} %",
            f"{row['state']:.1f}",
            f"{row['temporary_mb']:.0f} MB",
            f"{row['peak_mb']:.0f} MB",
            f"{row['trace_ratio']:.1f}",
            f"{row['compile_ratio']:.1f}",
            f"{row['instructions']}",
        ]
        for row in rows
    ]
    return pages.table([[*head, "trace", "compile", "HLO"], *lines])


def short_table(rows: list[Row], device: str) -> str:
    """What one chooses by."""
    head = [f"one step on {device}", "ratio", "to", "bytes", "temporaries"]
    lines = [
        [
            *_compared(row),
            f"{row['bytes_per_weight']:.0f}",
            f"{row['temporary_mb']:.0f} MB",
            f"{row['compile_ratio']:.1f}",
        ]
        for row in rows
    ]
    return pages.table([[*head, "compile"], *lines])


def peers_table(rows: list[Row], device: str) -> str:
    """The rows of torch's libraries."""
    head = [f"one step on {device}", "ratio", "to", "ms", "bytes"]
    lines = [
        [
            *_compared(row),
            duration(row["milliseconds"]),
            f"{row['bytes_per_weight']:.0f}",
        ]
        for row in rows
    ]
    return pages.table([head, *lines])


def _compared(row: Row) -> list[str]:
    name, base = f"`{row['optimizer']}`", f"`{row['baseline']}`"
    return [name, cell(row["ratio"], row["quartiles"]), base]


def cell(middle: float, around: list[float]) -> str:
    """A median and its quartiles.

    Examples:
        >>> cell(1.5, [1.25, 12.0])
        '1.50 (1.25 to 12.00)'
    """
    return "{:.2f} ({:.2f} to {:.2f})".format(middle, *around)


def duration(milliseconds: float) -> str:
    """Three digits, or all there are before the point.

    Examples:
        >>> duration(1.2345), duration(9470.3)
        ('1.23', '9,470')
    """
    long = milliseconds >= 1000
    return f"{milliseconds:,.0f}" if long else f"{milliseconds:.3g}"


def section(found: Row, machine: dict[str, Any]) -> str:
    """What a set of parameters has between its markers.

    Args:
        found: what `step_time.measure` returns, with the rows of torch's
            libraries as `peers`, if there are any.
        machine: what `step_time.machine` returns.
    """
    speeds = "; ".join(
        f"{name}: {speed:.3g} GB/s"
        for name, speed in found["bandwidth"].items()
    )
    about = (
        f"{found['weights']:,} weights in {found['dtype']}. {speeds}."
        f" {machine['cores']} cores, JAX {machine['jax']}, optax"
        f" {machine['optax']}."
    )
    parts = [about, table(found["rows"], machine["device"])]
    for peers in found.get("peers", []):
        parts += [
            f"To torch's own, in a process of their own, torch"
            f" {peers['torch']}:",
            peers_table(peers["rows"], peers["device"]),
        ]
    return "\n\n".join(parts)
