"""What finding the scale groups of known networks costs, and what is found.

    python -m benchmarks.find_groups
    python -m benchmarks.find_groups --docs  # and docs/finding-groups.md anew

The analysis of a training loss, by shapes alone. Each network is analysed in a
process of its own, so that its peak memory is its own. The increase in memory
is counted from where all imports are done, and includes making the network.
Seconds are those of the CPU, which other programs do not lengthen much.
"""

import argparse
import collections
import functools
import json
import math
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import flax
import jax
from jax.extend import core

import psi_optax
from benchmarks import networks, pages
from benchmarks.harness import files
from benchmarks.harness.files import one_message
from benchmarks.networks import Problem
from benchmarks.options import at_least, one_of

NETWORKS: dict[str, tuple[str, Callable[[], Problem]]] = {
    "resnet50_linen": ("ResNet-50, Linen", networks.resnet50_linen),
    "resnet50_nnx": ("ResNet-50, NNX", networks.resnet50_nnx),
    "transformer_linen": ("Transformer, Linen", networks.transformer_linen),
}


class Deep(NamedTuple):
    """A network at one of several depths.

    Attributes:
        title: the name of the network, the same at all depths.
        layers: the depth.
        make: makes the network.
    """

    title: str
    layers: int
    make: Callable[[], Problem]


DEEP: dict[str, Deep] = {
    f"{name}_{layers}": Deep(title, layers, functools.partial(make, layers))
    for name, title, make, depths in (
        (
            "transformer",
            "Transformer, Linen",
            networks.transformer_linen,
            (8, 24, 48, 96),
        ),
        (
            "resnet",
            "ResNet for 32 x 32, Linen",
            networks.small_resnet_linen,
            (20, 56, 110),
        ),
    )
    for layers in depths
}

_MAKERS = {name: make for name, (_, make) in NETWORKS.items()} | {
    name: deep.make for name, deep in DEEP.items()
}

# Small networks whose reports are short enough to be read.
SHOWN: dict[str, Callable[[], Problem]] = {
    "ResNet-8 for images of 32 x 32": networks.resnet8_linen,
    "A Transformer of 2 layers with QK-norm": lambda: (
        networks.transformer_linen(
            layers=2, width=64, heads=4, vocabulary=256, length=32
        )
    ),
}

_ROOT = pathlib.Path(__file__).parents[1]
_PAGE = pages.DOCS / "finding-groups.md"


def measure(make: Callable[[], Problem], runs: int = 3) -> dict[str, Any]:
    """Seconds and memory of the analysis of a network, and its verdicts.

    Args:
        make: makes the network.
        runs: how many runs the median is of; one more goes before them.
    """
    before = peak_mb()
    problem = make()
    seconds, reports = [], []
    for _ in range(1 + runs):
        start = time.process_time()
        reports[:] = [analyse(problem)]
        seconds.append(time.process_time() - start)
    [report], peak = reports, peak_mb()
    kinds = collections.Counter(f.kind for f in report.findings.values())
    leaves = jax.tree.leaves(problem.params)
    program = jax.make_jaxpr(problem.loss)(problem.params, *problem.args)
    return {
        "numbers": sum(math.prod(x.shape) for x in leaves),
        "arrays": len(leaves),
        "equations": count_equations(program),
        "first_s": seconds[0],
        "median_s": statistics.median(seconds[1:]),
        "peak_mb": peak,
        "increase_mb": peak - before,
        "kinds": dict(kinds),
    }


def analyse(problem: Problem) -> psi_optax.GroupReport:
    """The scale groups of a network, by proof."""
    return psi_optax.find_groups(
        problem.loss, problem.params, *problem.args, method="analysis"
    )


def count_equations(jaxpr: Any) -> int:
    """The equations of a program and of all programs within it.

    Examples:
        >>> nested = jax.jit(lambda x: 2 * x + 1)
        >>> count_equations(jax.make_jaxpr(lambda x: nested(x) ** 2)(1.0))
        4
    """
    equations = getattr(jaxpr, "jaxpr", jaxpr).eqns
    return len(equations) + sum(
        count_equations(inner)
        for equation in equations
        for inner in core.jaxprs_in_params(equation.params)
    )


def peak_mb() -> float:
    """The most memory that this process has held, in MiB.

    Linux starts ru_maxrss at what the parent process held; its other figure
    starts at nothing.
    """
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def measure_alone(name: str, runs: int) -> dict[str, Any]:
    """The same in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.find_groups"]
    done = subprocess.run(
        [*command, "--alone", name, "--runs", str(runs)],
        cwd=_ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def table(rows: dict[str, dict[str, Any]]) -> str:
    """A column for each network, in Markdown, from what `measure` returns."""
    columns = [_column(title, row) for title, row in rows.items()]
    names = list(columns[0])
    lines = [[name, *(column[name] for column in columns)] for name in names]
    return pages.table(lines, right=True)


def _column(title: str, row: dict[str, Any]) -> dict[str, str]:
    kinds = collections.Counter(row["kinds"])
    proved = sum(n for kind, n in kinds.items() if kind.startswith("proved"))
    return {
        "": title,
        "parameters, numbers": f"{row['numbers']:,}",
        "equations": f"{row['equations']:,}",
        "first run": f"{row['first_s']:.2f} s",
        "later runs": f"{row['median_s']:.2f} s",
        "peak memory": f"{row['peak_mb']:.0f} MiB",
        "of it since the imports": f"{row['increase_mb']:.0f} MiB",
        "parameters, arrays": str(row["arrays"]),
        "- proved": str(proved),
        "- inert": str(kinds["inert"]),
        "- ordinary": str(kinds["ordinary"]),
        "- partly": str(kinds["partly"]),
    }


def depth_table(rows: Iterable[dict[str, Any]]) -> str:
    """Return a line for each depth, in Markdown.

    Args:
        rows: what `measure` returns, each with its title and its layers.
    """
    head = ["", "layers", "first run", "later runs", "a layer", "peak memory"]
    lines = [
        [
            row["title"],
            str(row["layers"]),
            f"{row['first_s']:.2f} s",
            f"{row['median_s']:.2f} s",
            f"{1000 * row['median_s'] / row['layers']:.0f} ms",
            f"{row['peak_mb']:.0f} MiB",
        ]
        for row in rows
    ]
    return pages.table([head, *lines], right=True)


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "flax": flax.__version__,
    }


def section(results: dict[str, Any]) -> str:
    """What goes between the markers: the table, and a report or two."""
    found = results["machine"]
    about = (
        f"{found['cores']} CPU cores, JAX {found['jax']}, Flax {found['flax']};"
        f" CPU time; later runs: median of {results['runs']}."
    )
    shown = [
        f"{title}:\n\n```text\n{analyse(make())}\n```"
        for title, make in SHOWN.items()
    ]
    tables = [
        table(results["networks"]),
        "By depth, where *a layer* is a later run divided by the layers:",
        depth_table(results["depths"]),
    ]
    return "\n\n".join([*tables, about, *shown])


def run(runs: int) -> dict[str, Any]:
    """All that is measured, one network after the other."""
    rows = {
        title: measure_alone(name, runs)
        for name, (title, _) in NETWORKS.items()
    }
    depths = [
        {"title": deep.title, "layers": deep.layers} | measure_alone(name, runs)
        for name, deep in DEEP.items()
    ]
    return {
        "machine": machine(),
        "runs": runs,
        "networks": rows,
        "depths": depths,
    }


@one_message()
def main(argv: list[str] | None = None) -> None:
    """Analyses all networks; prints a table and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=at_least(1), default=3)
    parser.add_argument("--out", type=pathlib.Path, default="results")
    parser.add_argument("--docs", action="store_true", help=f"write {_PAGE}")
    parser.add_argument("--alone", type=one_of(_MAKERS), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)

    if args.alone:
        print(json.dumps(measure(_MAKERS[args.alone], args.runs)))
        return
    files.make_folder(args.out)
    results = run(args.runs)
    print(table(results["networks"]))
    print(depth_table(results["depths"]))
    path = args.out / "find_groups.json"
    files.write(path, json.dumps(results, indent=1) + "\n")
    print(f"Numbers: {path}")
    if args.docs:
        pages.refill(_PAGE, "find_groups", section(results))
        pages.keep(path, _PAGE)
        print(f"Page: {_PAGE}")


if __name__ == "__main__":
    main()
