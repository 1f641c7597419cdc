"""What one optimizer step costs, as a ratio to the inner optimizer alone.

    python -m benchmarks.step_time
    python -m benchmarks.step_time --sets vit_b16 gpt_124m gpt_124m_bf16 tiny
    python -m benchmarks.step_time --peers  # torch's, after `make oracles`
    python -m benchmarks.step_time --peers --docs  # and docs/choosing.md anew

State and parameters are updated by one jitted, donated call; the gradients are
fixed. Cases run in turns, so that whatever else the machine does falls on all
of them alike, and ratios are formed turn by turn. Absolute times mean nothing
on a shared machine. Beside them runs the cheapest thing that reads two arrays
and writes one, w + 0.01 g in place: it moves 12 bytes for each float32 weight,
and the time of any step, over its time, says how many bytes the step is worth.

Tracing and compiling are timed too, each time anew, in alternating order, and
the least of each is taken.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks import pages, peers
from benchmarks.step_time_cases import (
    AXPY,
    SETS,
    ParameterSet,
    baseline,
    draw,
    optimizers,
)

Row = dict[str, Any]


class Case(NamedTuple):
    """A compiled optimizer step with what it works on."""

    step: Callable
    params: Any
    state: optax.OptState


class Compilation(NamedTuple):
    """What it took to compile a step, and what came of it."""

    trace_s: float
    compile_s: float
    instructions: int
    temporary_mb: float
    peak_mb: float


def build(tx: optax.GradientTransformation, params: Any) -> Case:
    """A step in place, not compiled yet, on copies of the parameters."""
    params = jax.tree.map(jnp.copy, params)

    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return Case(step, params, jax.jit(tx.init)(params))


def build_axpy(params: Any) -> Case:
    """The yardstick, as if it were an optimizer without state."""

    def step(params, state, gradients):
        moved = jax.tree.map(
            lambda w, g: w + jnp.asarray(0.01, w.dtype) * g, params, gradients
        )
        return moved, state

    return Case(step, jax.tree.map(jnp.copy, params), ())


def compile_case(case: Case, gradients: Any) -> tuple[Case, Compilation]:
    """Compiles a step as if it had never been."""

    def step(*arguments):  # A new function: nothing of it is cached.
        return case.step(*arguments)

    fresh = jax.jit(step, donate_argnums=(0, 1))
    start = time.perf_counter()
    lowered = fresh.lower(case.params, case.state, gradients)
    traced = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()
    return case._replace(step=compiled), Compilation(
        traced - start,
        done - traced,
        (compiled.as_text() or "").count(" = "),
        *_memory(compiled.memory_analysis()),
    )


def _memory(found: Any) -> tuple[float, float]:
    """Megabytes of temporaries, and of all that is alive at once."""
    if found is None:
        return float("nan"), float("nan")
    peak = (
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes
        + found.temp_size_in_bytes
    )
    return found.temp_size_in_bytes / 2**20, peak / 2**20


def compile_in_turns(
    cases: dict[str, Case], gradients: Any, times: int
) -> tuple[dict[str, Case], dict[str, Compilation]]:
    """Compiles every case so often, back and forth; the least time counts."""
    compiled, found = {}, {}
    for turn in range(times):
        for name in list(cases)[:: 1 if turn % 2 == 0 else -1]:
            compiled[name], new = compile_case(cases[name], gradients)
            old = found.get(name, new)
            found[name] = new._replace(
                trace_s=min(new.trace_s, old.trace_s),
                compile_s=min(new.compile_s, old.compile_s),
            )
    return compiled, found


def time_in_turns(
    cases: dict[str, Case], gradients: Any, turns: int, steps: int
) -> dict[str, list[float]]:
    """Seconds per step of each case, one figure a turn."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(turns + 1):
        for name, case in cases.items():
            params, state = case.params, case.state
            start = time.perf_counter()
            for _ in range(steps):
                params, state = case.step(params, state, gradients)
            jax.block_until_ready((params, state))
            if turn:  # The first turn warms up.
                seconds[name].append((time.perf_counter() - start) / steps)
            cases[name] = case._replace(params=params, state=state)
    return seconds


def report(
    cases: dict[str, Case],
    compilations: dict[str, Compilation],
    seconds: dict[str, list[float]],
) -> list[Row]:
    """One row a case: its ratio to its baseline, with the quartiles."""
    rows = []
    for name, case in cases.items():
        base = baseline(name)
        low, middle, high = _quartiles(seconds[name], seconds[base])
        _, moved, _ = _quartiles(seconds[name], seconds[AXPY])
        mine, theirs = compilations[name], compilations[base]
        width = next(iter(jax.tree.leaves(case.params))).dtype.itemsize
        rows.append(
            {
                "optimizer": name,
                "baseline": base,
                "ratio": middle,
                "quartiles": [low, high],
                "bytes_per_weight": 3 * width * moved,
                "state": _bytes(case.state) / _bytes(case.params),
                "trace_ratio": mine.trace_s / theirs.trace_s,
                "compile_ratio": mine.compile_s / theirs.compile_s,
                **mine._asdict(),
            }
        )
    return rows


def _quartiles(ours: list[float], theirs: list[float]) -> list[float]:
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    if len(ratios) == 1:
        return ratios * 3
    return statistics.quantiles(ratios, n=4, method="inclusive")


def _bytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def measure(
    chosen: ParameterSet,
    turns: int,
    steps: int,
    compiles: int,
    only: Sequence[str] | None = None,
) -> list[Row]:
    """Times the optimizers of a set of parameters.

    Args:
        chosen: the set.
        turns: how often each has its turn.
        steps: how many steps a turn has.
        compiles: how often each is compiled.
        only: optimizers, beside their baselines; all by default.
    """
    params, gradients = draw(chosen)
    wanted = {*(only or []), *map(baseline, only or [])}
    cases = {AXPY: build_axpy(params)} | {
        name: build(tx, params)
        for name, tx in optimizers(
            params, chosen.grouped, chosen.family
        ).items()
        if not only or name in wanted
    }
    cases, compilations = compile_in_turns(cases, gradients, compiles)
    seconds = time_in_turns(cases, gradients, turns, steps)
    del cases[AXPY]
    return report(cases, compilations, seconds)


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    head = ["one step", "ratio", "to", "bytes", "state", "temporaries"]
    lines = [
        [
            f"`{row['optimizer']}`",
            "{:.1f} ({:.1f} to {:.1f})".format(row["ratio"], *row["quartiles"]),
            f"`{row['baseline']}`",
            f"{row['bytes_per_weight']:.0f}",
            f"{row['state']:.1f}",
            f"{row['temporary_mb']:.0f} MB",
            f"{row['trace_ratio']:.1f}",
            f"{row['compile_ratio']:.1f}",
            f"{row['instructions']}",
        ]
        for row in rows
    ]
    return pages.table([[*head, "trace", "compile", "HLO"], *lines])


def run_peers() -> list[Row]:
    """Rows of torch's libraries, as far as they are installed."""
    rows: dict[str, Row] = {}
    for found in peers.outputs("benchmarks.step_time_peers"):
        for row in found["rows"]:
            rows.setdefault(row["optimizer"], row)
    return list(rows.values())


def peers_table(rows: list[Row]) -> str:
    """The same, fewer columns."""
    lines = [
        [
            f"`{row['optimizer']}`",
            "{:.1f} ({:.1f} to {:.1f})".format(row["ratio"], *row["quartiles"]),
            f"`{row['baseline']}`",
        ]
        for row in rows
    ]
    return pages.table([["one step", "ratio", "to"], *lines])


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "device": jax.devices()[0].device_kind,
        "cores": len(os.sched_getaffinity(0)),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "optax": optax.__version__,
    }


def main(argv: list[str] | None = None) -> None:
    """Runs all cases; prints tables and writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--sets", nargs="+", choices=SETS, default=["resnet50"])
    add("--turns", type=int, default=15)
    add("--steps", type=int, default=10)
    add("--compiles", type=int, default=3)
    add("--only", nargs="+", help="optimizers; all by default")
    add("--peers", action="store_true", help="time torch's libraries too")
    add("--docs", action="store_true", help="put the table into the docs")
    add("--out", type=pathlib.Path, default="results")
    args = parser.parse_args(argv)
    found: dict[str, Any] = {"machine": machine(), "sets": {}}
    for name in args.sets:
        rows = measure(
            SETS[name], args.turns, args.steps, args.compiles, args.only
        )
        found["sets"][name] = rows
        print(f"\n{name}\n\n{table(rows)}")
    if args.peers:
        found["peers"] = run_peers()
        print(f"\ntorch\n\n{peers_table(found['peers'])}")
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "step_time.json"
    path.write_text(json.dumps(found, indent=1))
    print(f"\nNumbers: {path}")
    if args.docs:
        pages.refill(pages.DOCS / "choosing.md", "step time", _page(found))


def _page(found: dict[str, Any]) -> str:
    where = found["machine"]
    versions = (
        f"JAX {where['jax']}, optax {where['optax']}, {where['cores']} cores."
    )
    parts = [table(found["sets"]["resnet50"])]
    if found.get("peers"):
        parts += [
            "Other libraries, on the same parameters, in a process of their"
            " own, to torch's:",
            peers_table(found["peers"]),
        ]
    return "\n\n".join([*parts, versions])


if __name__ == "__main__":
    main()
