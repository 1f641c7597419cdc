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
from functools import partial
from typing import Annotated, Any

import jax

import psi_optax
from benchmarks import problems
from benchmarks.harness import pages
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Count, one_of, some
from benchmarks.harness.processes import alone
from benchmarks.harness.results import Content, Results
from benchmarks.problems import GPT2_SMALL, Network, Problem
from psi_optax._compat import jaxprs_in_params
from psi_optax.models.architectures import TransformerArchitecture

_RESNET, _TRANSFORMER = "ResNet for 32 x 32, Linen", "Transformer, Linen"
_resnet, _transformer = problems.small_resnet, problems.transformer

NETWORKS = {
    "resnet50_linen": Network("ResNet-50, Linen", problems.resnet50_linen),
    "resnet50_nnx": Network("ResNet-50, NNX", problems.resnet50_nnx),
    "transformer": Network(_TRANSFORMER, _transformer),
    **{
        f"transformer_{n}": Network(
            _TRANSFORMER, partial(_transformer, GPT2_SMALL._replace(depth=n)), n
        )
        for n in (8, 24, 48, 96)
    },
    **{
        f"resnet_{n}": Network(_RESNET, partial(_resnet, n), n)
        for n in (20, 56, 110)
    },
}

# Small networks, for reports that are short enough to be read.
SHOWN = {
    "ResNet-8 for images of 32 x 32": partial(_resnet, 8),
    "A Transformer of 2 layers with QK-norm": partial(
        _transformer, TransformerArchitecture(32, 64, depth=2, heads=4), 256
    ),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the measurement.

    Attributes:
        runs: Runs that the median is of. One more goes before them.
        networks: Networks to analyse.
    """

    runs: Count = 3
    networks: Annotated[tuple[str, ...], some(one_of(NETWORKS))] = (*NETWORKS,)


def measure(settings: Settings, results: Results) -> None:
    """Analyse the networks one after the other."""
    results.expect(len(settings.networks))
    for name in settings.networks:
        results.part(name, partial(alone, analysis, name, settings.runs))


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
        for inner in jaxprs_in_params(equation.params)
    )


def peak_mb() -> float:
    """Return the largest memory that this process has held, in MiB."""
    # On Linux ru_maxrss starts at what the parent process held.
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        [peak] = re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())
        return int(peak) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


# Formats of cells, by the title of their column.
CELLS = {
    "": "{title}",
    "layers": "{layers}",
    "parameters, numbers": "{numbers:,}",
    "equations": "{equations:,}",
    "first run": "{first_s:.2f} s",
    "later runs": "{median_s:.2f} s",
    "a layer": "{layer_ms:.0f} ms",
    "peak memory": "{peak_mb:.0f} MiB",
    "of it since the imports": "{increase_mb:.0f} MiB",
    "parameters, arrays": "{arrays}",
    **{f"- {x}": f"{{{x}}}" for x in ("proved", "inert", "ordinary", "partly")},
}
DEPTHS = ["", "layers", "first run", "later runs", "a layer", "peak memory"]
SIZES = [name for name in CELLS if name not in ("layers", "a layer")]


def report(content: Content) -> str:
    """Return a column for each network, and a line for each depth."""
    versions, runs = content["versions"], content["settings"]["runs"]
    rows = [
        _row(network, part)
        for name, network in NETWORKS.items()
        if (part := content["parts"].get(name))
    ]
    whole = _lines([row for row in rows if not row["layers"]], SIZES)
    deep = _lines([row for row in rows if row["layers"]], DEPTHS)
    about = "{cores} CPU cores, JAX {jax}, Flax {flax}; later runs: median of"
    return "\n\n".join(
        [
            pages.table(list(zip(*whole, strict=True)), right=True),
            pages.table(deep, right=True),
            f"{about.format(**versions)} {runs}.",
        ]
    )


def _row(network: Network, part: dict[str, Any]) -> dict[str, Any]:
    """Return what the formats name, verdicts counted by their first word."""
    kinds = collections.Counter(proved=0, inert=0, ordinary=0, partly=0)
    for kind, count in part["kinds"].items():
        kinds[kind.split()[0]] += count
    layer_ms = 1000 * part["median_s"] / (network.layers or 1)
    return {**part, **network._asdict(), **kinds, "layer_ms": layer_ms}


def _lines(rows: list[dict[str, Any]], names: list[str]) -> list[list[str]]:
    lines = [[CELLS[name].format(**row) for name in names] for row in rows]
    return [names, *lines]


def sections(content: Content) -> dict[tuple[str, str], str]:
    """Return the reports on small networks, for the page."""
    del content
    shown = [
        f"{title}:\n\n```\n{analyse(make())}\n```"
        for title, make in SHOWN.items()
    ]
    deep = analyse(_transformer(GPT2_SMALL._replace(post_norms=True)))
    return {
        ("finding-groups.md", "find_groups_reports"): "\n\n".join(shown),
        ("finding-groups.md", "find_groups_summary"): (
            f"```\n{deep.summary()}\n```"
        ),
        ("finding-groups.md", "find_groups_patterns"): (
            f"```\n{deep.patterns()}\n```"
        ),
    }


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
