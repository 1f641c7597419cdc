"""Direction errors of runs whose first weights are rescaled.

Each optimizer of psi_optax and optax runs from four starts, and those of
torch's libraries where `make oracles` has made their environments. The exit
status is 1 if a claim about psi_optax does not hold, or a run hardly moves.
"""

import dataclasses
import functools
import pathlib
import sys
from typing import Annotated, Any

import jax
import numpy as np
import optax

import psi_optax
from benchmarks.experiments.equivariance import peers, problem, report
from benchmarks.experiments.equivariance.rows import OPTAX, OURS
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Folder, one_of, some
from benchmarks.harness.processes import in_torch
from benchmarks.harness.results import Results

ROWS = {**OURS, **OPTAX}
NAMES = (*ROWS, *peers.OPTIONS)
_ROW = dataclasses.replace(one_of(NAMES), metavar="ROW")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Rows of the table.

    Attributes:
        optimizers: Rows to measure, as the table names them; by default all.
        sources: Folder of clones, as tests/oracles/make.py wants it.
    """

    optimizers: Annotated[tuple[str, ...], some(_ROW)] = ()
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
    with jax.enable_x64(True):
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
        return problem.stacked(path)

    return run


def run_peers(sources: pathlib.Path | None = None) -> dict[str, Any]:
    """Measure the peers in the environments that there are."""
    arguments = [str(sources.absolute())] if sources else []
    found = in_torch(peers.__name__, arguments)
    return {name: row for rows in found for name, row in rows.items()}


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(("psi_sgd(momentum)", "sgd(momentum)")),
    measure=measure,
    report=report.report,
    page="equivariance.md",
    faults=report.faults,
    selects=("optimizers", "sources"),
)
