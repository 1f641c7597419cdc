"""Direction errors of runs whose first weights are rescaled.

Each optimizer of psi_optax and optax runs from four starts, and those of
torch's libraries where `make oracles` has made their environments. The exit
status is 1 if a claim about psi_optax does not hold, or a run hardly moves.
"""

import dataclasses
import functools
import itertools
import pathlib
import sys
from typing import Annotated, Any

import jax
import numpy as np
import optax

import psi_optax
from benchmarks.experiments.equivariance import peers, problem
from benchmarks.experiments.equivariance.rows import OPTAX, OURS
from benchmarks.harness import pages
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Folder, one_of, some
from benchmarks.harness.processes import in_torch
from benchmarks.harness.results import Content, Results
from psi_optax._compat import enable_x64

ROWS = {**OURS, **OPTAX}
NAMES = (*ROWS, *peers.OPTIONS)
_ROW = dataclasses.replace(one_of(NAMES), metavar="ROW")

EXACT, TO_EPSILON = 1e-12, 1e-3
"""The largest direction errors of what is called exact, and nearly so."""

STILL, FARTHEST = 0.05, 2.0
"""Directions have to move by more, and cannot move by more than the latter."""

TABLES = ("psi_optax", "optax", "other libraries")
COLUMNS = ("moved", "growth", "may be rescaled", "same bits")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Rows of the table."""

    # Rows to measure, as the table names them; by default all.
    optimizers: Annotated[tuple[str, ...], some(_ROW)] = ()
    # Folder of clones, as tests/oracles/make.py wants it.
    sources: Folder | None = None


def measure(settings: Settings, results: Results) -> None:
    """Measure a part for each optimizer."""
    names = settings.optimizers or NAMES
    results.expect(len(names))
    needed = peers.OPTIONS.keys() & names - results.content["parts"].keys()
    found = run_peers(settings.sources) if needed else {}
    if absent := [name for name in names if name in needed - found.keys()]:
        print("not installed, see `make oracles`:", *absent, file=sys.stderr)
    for name in names:
        if name in ROWS:
            results.part(name, functools.partial(measure_row, name))
        elif name in found:
            results.part(name, functools.partial(found.get, name))


def measure_row(name: str) -> dict[str, Any]:
    """Measure a JAX optimizer, see `problem.measure`.

    With an exact claim "powers_of_two" is the direction error in float32 for
    starts that are rescaled by them.
    """
    library = psi_optax if name in OURS else optax
    tx, claim = ROWS[name]
    run, error = follow(tx), None
    if claim in problem.KINDS:
        start = problem.start(np.float32)
        other = problem.rescaled(start, claim, 2, 20)
        error = problem.direction_error(run(start), run(other))
    about = {"library": library.__name__, "optimizer": name}
    about |= {"version": library.__version__, "claim": claim}
    with enable_x64(True):
        return {**about, "powers_of_two": error, **problem.measure(run)}


def follow(tx: optax.GradientTransformation) -> problem.Run:
    """Return the run of an optimizer, by one executable for each dtype."""

    @jax.jit
    def move(gradients, state, weights):
        updates, state = tx.update(gradients, state, weights)
        return optax.apply_updates(weights, updates), state

    def run(weights: problem.Weights) -> problem.Path:
        state, path = tx.init(weights), []
        for step in range(problem.STEPS):
            gradients = problem.gradient(step, weights)
            weights, state = move(gradients, state, weights)
            weights = {name: np.asarray(w) for name, w in weights.items()}
            path.append(weights)
        return path

    return run


def run_peers(sources: pathlib.Path | None = None) -> dict[str, Any]:
    """Measure the peers in the environments that there are."""
    arguments = [str(sources.absolute())] if sources else []
    found = in_torch(peers.__name__, arguments)
    return {name: row for rows in found for name, row in rows.items()}


def verdict(errors: dict[str, float]) -> str:
    """Return the finest rescaling that has no effect, as coarser ones, or none.

    Examples:
        >>> verdict({"network": 1e-15, "tensor": 2e-15, "filter": 0.3})
        'tensor'
        >>> verdict({"network": 1e-9, "tensor": 1e-8, "filter": 2e-8})
        'filter, to epsilon'
        >>> verdict({"network": 0.2, "tensor": 0.3, "filter": 0.1})
        'none'
    """
    worst = np.maximum.accumulate([errors[kind] for kind in problem.KINDS])
    for kind, error in reversed([*zip(problem.KINDS, worst, strict=True)]):
        if error <= EXACT:
            return kind
        if error <= TO_EPSILON:
            return f"{kind}, to epsilon"
    return "none"


def faults(content: Content) -> list[str]:
    """Return the claims that do not hold, and runs that show nothing."""
    found = []
    for name, row in content["parts"].items():
        seen, claim = verdict(row["errors"]), row["claim"]
        if claim not in ("", seen):
            found.append(f"{name}: claimed is {claim}, found is {seen}.")
        if row["powers_of_two"]:
            found.append(f"{name}: rescaling by powers of two changes bits.")
        if not STILL < row["moved"] <= FARTHEST:
            found.append(f"{name} hardly moves or diverges: change its rate.")
    return found


def report(content: Content) -> str:
    """Return a table for each kind of library, and the versions."""
    head = ["optimizer", *problem.KINDS, *COLUMNS]
    rows = sorted(content["parts"].values(), key=_table)
    versions = {"JAX": content["versions"]["jax"]}
    versions |= {row["library"]: row["version"] for row in rows}
    tables = [
        f"### {TABLES[index]}\n\n{pages.table([head, *map(_cells, group)])}"
        for index, group in itertools.groupby(rows, _table)
    ]
    listed = ", ".join(map(" ".join, versions.items()))
    return "\n\n".join([*tables, pages.wrap(f"{listed}.")])


def _table(row: dict[str, Any]) -> int:
    """Return the index of the table that shows a row."""
    return [*TABLES[:-1], row["library"]].index(row["library"])


def _cells(row: dict[str, Any]) -> list[str]:
    library = "" if row["library"] in TABLES else f"{row['library']} "
    powers = row["powers_of_two"]
    numbers = [row["errors"][kind] for kind in problem.KINDS]
    numbers += row["moved"], row["growth"]
    return [
        f"{library}`{row['optimizer']}`",
        *(f"{x:.2f}" if x >= 0.01 else f"{x:.1e}" for x in numbers),
        verdict(row["errors"]),
        "" if powers is None else "no" if powers else "yes",
    ]


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(("psi_sgd(momentum)", "sgd(momentum)")),
    measure=measure,
    report=report,
    page="equivariance.md",
    faults=faults,
    selects=("optimizers", "sources"),
)
