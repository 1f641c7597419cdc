"""Time, memory and verdicts of the analysis by which scale groups are found.

Training losses of known networks are analysed as shapes, each in a process of
its own. Seconds are CPU time. The increase in memory is counted from where all
imports are done, and includes making the network.
"""

import collections
import dataclasses
import math
import pathlib
import re
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import jax
from jax.extend import core

import psi_optax
from benchmarks import problems
from benchmarks.harness import pages
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Count, one_of, some
from benchmarks.harness.processes import alone
from benchmarks.harness.results import Content, Results
from benchmarks.problems import Network, Problem

NETWORKS = {
    "resnet50_linen": Network("ResNet-50, Linen", problems.resnet50_linen),
    "resnet50_nnx": Network("ResNet-50, NNX", problems.resnet50_nnx),
    "transformer": Network("Transformer, Linen", problems.transformer),
    **{
        f"transformer_{n}": Network(
            "Transformer, Linen", partial(problems.transformer, n), n
        )
        for n in (8, 24, 48, 96)
    },
    **{
        f"resnet_{n}": Network(
            "ResNet for 32 x 32, Linen", partial(problems.small_resnet, n), n
        )
        for n in (20, 56, 110)
    },
}

# Small networks, for reports that are short enough to be read.
SHOWN = {
    "ResNet-8 for images of 32 x 32": partial(problems.small_resnet, 8),
    "A Transformer of 2 layers with QK-norm": partial(
        problems.transformer, 2, width=64, heads=4, length=32, vocabulary=256
    ),
}

Networks = Annotated[tuple[str, ...], some(one_of(NETWORKS))]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the measurement.

    Attributes:
        runs: Runs that the median is of. One more goes before them.
        networks: Networks to analyse.
    """

    runs: Count = 3
    networks: Networks = tuple(NETWORKS)


def measure(settings: Settings, results: Results) -> None:
    """Analyse the networks one after the other."""
    results.expect(len(settings.networks))
    for name in settings.networks:
        one = partial(alone, analysis, name, settings.runs)
        results.part(name, one)


def analysis(name: str, runs: int) -> dict[str, Any]:
    """Return seconds and memory of the analysis of a network, and verdicts."""
    before = peak_mb()
    problem = NETWORKS[name].make()
    seconds, reports = [], []
    for _ in range(1 + runs):
        start = time.process_time()
        reports[:] = [analyse(problem)]
        seconds.append(time.process_time() - start)
    [report], peak = reports, peak_mb()
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
        "kinds": collections.Counter(f.kind for f in report.findings.values()),
    }


def analyse(problem: Problem) -> psi_optax.GroupReport:
    """Return the proved scale groups of a network."""
    loss, params, args = problem
    return psi_optax.find_groups(loss, params, *args, method="analysis")


def count_equations(jaxpr: Any) -> int:
    """Return the number of equations of a program, nested ones included.

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
    """Return the largest memory that this process has held, in MiB."""
    # On Linux ru_maxrss starts at what the parent process held.
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        [peak] = re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())
        return int(peak) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


CELLS: dict[str, Callable[[dict[str, Any]], str]] = {
    "": lambda row: row["title"],
    "layers": lambda row: str(row["layers"]),
    "parameters, numbers": lambda row: f"{row['numbers']:,}",
    "equations": lambda row: f"{row['equations']:,}",
    "first run": lambda row: f"{row['first_s']:.2f} s",
    "later runs": lambda row: f"{row['median_s']:.2f} s",
    "a layer": lambda row: f"{1000 * row['median_s'] / row['layers']:.0f} ms",
    "peak memory": lambda row: f"{row['peak_mb']:.0f} MiB",
    "of it since the imports": lambda row: f"{row['increase_mb']:.0f} MiB",
    "parameters, arrays": lambda row: str(row["arrays"]),
    "- proved": lambda row: _count(row, "proved"),
    "- inert": lambda row: _count(row, "inert"),
    "- ordinary": lambda row: _count(row, "ordinary"),
    "- partly": lambda row: _count(row, "partly"),
}

DEPTHS = ["", "layers", "first run", "later runs", "a layer", "peak memory"]
SIZES = [name for name in CELLS if name not in ("layers", "a layer")]


def _count(row: dict[str, Any], kind: str) -> str:
    """Return the number of parameters of this kind, up to epsilon or not."""
    kinds = row["kinds"].items()
    return str(sum(n for found, n in kinds if found.startswith(kind)))


def report(content: Content) -> str:
    """Return a column for each network, and a line for each depth."""
    versions, parts = content["versions"], content["parts"]
    rows = [
        {"title": title, "layers": layers, **parts[name]}
        for name, (title, _, layers) in NETWORKS.items()
        if name in parts
    ]
    whole = _lines([row for row in rows if not row["layers"]], SIZES)
    deep = _lines([row for row in rows if row["layers"]], DEPTHS)
    about = (
        f"{versions['cores']} CPU cores, JAX {versions['jax']}, Flax"
        f" {versions['flax']}; CPU time; later runs: median of"
        f" {content['settings']['runs']}."
    )
    return "\n\n".join(
        [
            pages.table(list(zip(*whole, strict=True)), right=True),
            "By depth, where *a layer* is a later run divided by the layers:",
            pages.table(deep, right=True),
            about,
        ]
    )


def _lines(rows: list[dict[str, Any]], names: list[str]) -> list[list[str]]:
    return [names, *([CELLS[name](row) for name in names] for row in rows)]


def sections(content: Content) -> dict[tuple[str, str], str]:
    """Return the reports on small networks, for the page."""
    del content
    shown = [
        f"{title}:\n\n```text\n{analyse(make())}\n```"
        for title, make in SHOWN.items()
    ]
    return {("finding-groups.md", "find_groups_reports"): "\n\n".join(shown)}


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(runs=1, networks=("transformer", "resnet_20")),
    measure=measure,
    report=report,
    page="finding-groups.md",
    sections=sections,
    selects=("networks",),
    timed=True,
)
