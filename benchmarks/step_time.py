"""What one optimizer step costs, as a ratio to the inner optimizer alone.

    python -m benchmarks.step_time
    python -m benchmarks.step_time --sets vit_b16 gpt_124m gpt_124m_bf16 tiny
    python -m benchmarks.step_time --peers  # torch's, after `make oracles`
    python -m benchmarks.step_time --peers --docs  # and the pages of docs/ anew

State and parameters are updated by one jitted, donated call; the gradients are
fixed. Cases run in turns, so that whatever else the machine does falls on all
of them alike, and ratios are formed turn by turn. Absolute times mean nothing
on a shared machine. Beside them run the cheapest things that move as much
memory: w + 0.01 g in place, which moves 12 bytes for each float32 weight, so
that the time of any step, over its time, says how many bytes the step is worth;
and a copy from one large array to another.

Tracing and compiling are timed too, each time anew, in alternating order, and
the least of each is taken.

What is found is added to the JSON of earlier runs on the same machine, and a
set of parameters that is timed again replaces its numbers there.
"""

import argparse
import json
import os
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

import jax
import optax

from benchmarks import pages, peers, step_time_chart, step_time_report
from benchmarks.harness import files
from benchmarks.harness.files import InputError, one_message
from benchmarks.options import at_least, one_of, unknown
from benchmarks.step_time_cases import baseline, draw, makers
from benchmarks.step_time_report import AXPY, COPY
from benchmarks.step_time_sets import SETS, ParameterSet
from benchmarks.step_time_steps import (
    build_axpy,
    build_copy,
    compile_in_turns,
    size,
)
from benchmarks.step_time_turns import time_in_turns

Found = dict[str, Any]

# What the README shows of ResNet-50.
_README = (
    "sgd, then renormalize by hand",
    "psi_sgd(momentum)",
    "psi(optax.sgd(momentum))",
    "optax.lars",
    "psi_adam",
    "psi(optax.adam)",
    "optax.lamb",
)


def measure(
    chosen: ParameterSet,
    turns: int,
    steps: int,
    compiles: int,
    only: Sequence[str] | None = None,
) -> Found:
    """Times the optimizers of a set of parameters.

    Args:
        chosen: the set.
        turns: how often each has its turn.
        steps: how many steps a turn has at most.
        compiles: how often each is compiled.
        only: optimizers, beside their baselines; all by default.

    Returns:
        Number and dtype of the weights, the memory bandwidth that the
        yardsticks reach (GB/s), and a row for each optimizer.

    Raises:
        InputError: there is no such optimizer.
    """
    params, gradients = draw(chosen)
    made = makers(params, chosen)
    for name in only or ():
        if name not in made:
            raise InputError(f"optimizers: {unknown(name, made)}.")
    wanted = {*(only or made), *map(baseline, only or made)}
    names = [name for name in made if name in wanted]

    def part(names: Sequence[str]) -> Found:
        cases = {AXPY: build_axpy(params), COPY: build_copy(params)} | {
            name: made[name]() for name in names
        }
        cases, compilations = compile_in_turns(cases, gradients, compiles)
        runs = {name: case.run(gradients) for name, case in cases.items()}
        seconds = time_in_turns(runs, turns, steps)
        return {
            "bandwidth": step_time_report.bandwidths(seconds, size(params)),
            "rows": step_time_report.report(cases, compilations, seconds),
        }

    if chosen.together:
        found = part(names)
    else:
        pairs = [part(list({baseline(x): 0, x: 0})) for x in names]
        rows = [pair["rows"][-1] for pair in pairs]
        found = {"bandwidth": pairs[0]["bandwidth"], "rows": rows}
    return {"weights": chosen.weights, "dtype": chosen.dtype, **found}


def run_peers(name: str) -> list[Found]:
    """What torch's libraries take for a set, as far as they are installed."""
    seen: set[str] = set()
    results = []
    for found in peers.outputs("benchmarks.step_time_peers", ["--set", name]):
        rows = [row for row in found["rows"] if row["optimizer"] not in seen]
        seen |= {row["optimizer"] for row in rows}
        if rows:
            results.append({**found, "rows": rows})
    return results


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "platform": jax.default_backend(),
        "device": _device(),
        "cores": len(os.sched_getaffinity(0)),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "optax": optax.__version__,
    }


def _device() -> str:
    """The name of the accelerator, or of the processor where it tells it."""
    kind = jax.devices()[0].device_kind
    about = pathlib.Path("/proc/cpuinfo")
    if kind == "cpu" and about.exists():
        for line in about.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return kind


@one_message()
def main(argv: list[str] | None = None) -> None:
    """Runs all cases; prints tables and writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add(
        "--sets",
        nargs="+",
        choices=SETS,
        type=one_of(SETS),
        default=["resnet50"],
    )
    add("--turns", type=at_least(1), default=15)
    add("--steps", type=at_least(1), default=10, help="of a turn, at most")
    add("--compiles", type=at_least(1), default=3)
    add("--only", nargs="+", help="optimizers; all by default")
    add("--peers", action="store_true", help="time torch's libraries too")
    add("--docs", action="store_true", help="put the tables into the docs")
    add("--note", help="markers of docs/step-time.md for the short table")
    add("--out", type=pathlib.Path, default="results")
    args = parser.parse_args(argv)
    if args.only and args.docs:
        parser.error("the docs show all optimizers: leave out --only or --docs")
    files.make_folder(args.out)
    page = pages.DOCS / "step-time.md"
    pages.check(page, *filter(None, [args.note]))
    if args.docs:
        pages.check(page, *map(_markers, args.sets))
    path = args.out / "step_time.json"
    results = earlier(path)
    # Torch comes first: JAX does not give a GPU's memory back.
    others = {name: run_peers(name) for name in args.sets if args.peers}
    for name in args.sets:
        found = measure(
            SETS[name], args.turns, args.steps, args.compiles, args.only
        )
        if args.peers:
            found["peers"] = others[name]
        results["sets"][name] = {**results["sets"].get(name, {}), **found}
        files.write(path, json.dumps(results, indent=1))
        text = step_time_report.section(found, results["machine"])
        print(f"\n{name}\n\n{text}")
        if args.note:
            short = step_time_report.short_table(found["rows"], _device())
            pages.refill(page, args.note, short)
    print(f"\nNumbers: {path}")
    if args.docs:
        publish(results, args.sets)
        pages.keep(path, page)


def _markers(name: str) -> str:
    """The markers of docs/step-time.md for a set, on this platform."""
    return f"{jax.default_backend()} {name}"


def earlier(path: pathlib.Path) -> Found:
    """What runs on this machine have found before, or nothing yet.

    Raises:
        InputError: the file holds something else.
    """
    here = {"machine": machine(), "sets": {}}
    if not path.exists():
        return here
    results = files.read_json(path, "times of steps", ("machine", "sets"))
    return results if results["machine"] == here["machine"] else here


def publish(results: Found, names: Sequence[str]) -> None:
    """Puts sets into the pages of the docs; charts are of ResNet-50 on a CPU.

    Args:
        results: what the JSON has.
        names: the sets whose tables are replaced.
    """
    where = results["machine"]
    page = pages.DOCS / "step-time.md"
    for name in names:
        found = results["sets"][name]
        text = step_time_report.section(found, where)
        pages.refill(page, f"{where['platform']} {name}", text)
    if where["platform"] != "cpu" or "resnet50" not in names:
        return
    found = results["sets"]["resnet50"]
    short = step_time_report.short_table
    rows, device = found["rows"], where["device"]
    pages.refill(pages.DOCS / "choosing.md", "step time", short(rows, device))
    main = [row for row in rows if row["optimizer"] in _README]
    pages.refill(
        pages.DOCS.parent / "README.md", "step time", short(main, device)
    )
    others = [row for each in found.get("peers", []) for row in each["rows"]]
    drawn = step_time_chart.figure(found["rows"], others, where["device"])
    files.write_figure(page.with_suffix(".png"), drawn)


if __name__ == "__main__":
    main()
