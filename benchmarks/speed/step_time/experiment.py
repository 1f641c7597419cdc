"""The measurement: sets of parameters, and a row for each optimizer."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import optax

from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Count, one_of, some
from benchmarks.harness.processes import in_torch
from benchmarks.harness.results import Results
from benchmarks.speed import steps
from benchmarks.speed.sets import SETS
from benchmarks.speed.step_time import cases, report
from benchmarks.speed.step_time.cases import CASES, baseline
from benchmarks.speed.turns import Seconds, compared, quartiles

Found = dict[str, Any]

AXPY, COPY = "w + 0.01 g, in place", "a copy"

_MOVED = {AXPY: 3, COPY: 2}
"""Arrays that a yardstick reads and writes."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the measurement.

    Attributes:
        sets: Sets of parameters.
        only: Optimizers, beside their baselines; by default those of the set.
        peers: Time torch's libraries too, which `make oracles` installs.
        turns: Number of turns of each optimizer.
        steps: Number of steps of a turn, at most.
        compiles: Number of times that each is compiled.
    """

    sets: Annotated[tuple[str, ...], some(one_of(SETS))] = ("resnet50",)
    only: Annotated[tuple[str, ...], some(one_of(CASES))] = ()
    peers: bool = False
    turns: Count = 15
    steps: Count = 10
    compiles: Count = 3


def measure(settings: Settings, results: Results) -> None:
    """Measure a part for each set; rows that are not asked for stay."""
    results.expect(len(settings.sets))
    # Torch comes first: JAX does not give a GPU's memory back.
    peers = {x: run_peers(x) for x in settings.sets if settings.peers}
    for name in settings.sets:
        before = results.content["parts"].get(name, {"rows": [], "peers": []})
        part = functools.partial(_part, name, settings, before, peers)
        results.part(name, part)


def _part(name: str, settings: Settings, before: Found, peers: Found) -> Found:
    sizes = settings.turns, settings.steps, settings.compiles
    found = measure_set(name, *sizes, settings.only)
    rows = {x["optimizer"]: x for x in before["rows"] + found["rows"]}
    found["rows"] = [rows[case] for case in CASES if case in rows]
    return {**found, "peers": peers.get(name, before["peers"])}


def measure_set(
    name: str, turns: int, count: int, compiles: int, only: Sequence[str] = ()
) -> Found:
    """Measure the bandwidths of the yardsticks, and a row an optimizer."""
    chosen = SETS[name]
    params, gradients = cases.draw(chosen)

    def measured(names: Sequence[str]) -> Found:
        built = {AXPY: steps.build(optax.scale(0.01), params)}
        built[COPY] = steps.build_copy(params)
        for name in names:
            built[name] = cases.build(name, params, chosen.grouped)
        times = steps.time_cases(built, gradients, turns, count, compiles)
        speeds = bandwidths(times[0], steps.size(params))
        return {"bandwidth": speeds, "rows": rows(built, *times)}

    names = cases.chosen(chosen, tuple(only))
    if chosen.together:
        found = measured(names)
    else:
        pairs = [measured(list({baseline(x): 0, x: 0})) for x in names]
        found = {**pairs[0], "rows": [pair["rows"][-1] for pair in pairs]}
    return {"weights": chosen.weights, "dtype": chosen.dtype, **found}


def bandwidths(seconds: Seconds, parameters: int) -> dict[str, float]:
    """Return GB/s of the yardsticks, from the bytes of all parameters."""
    return {
        name: arrays * parameters / 1e9 / float(np.median(seconds[name]))
        for name, arrays in _MOVED.items()
    }


def rows(
    built: dict[str, steps.Case], seconds: Seconds, costs: dict[str, Found]
) -> list[Found]:
    """Return a row for each case but the yardsticks."""
    weights = built[AXPY].params
    parameters = steps.size(weights)
    width = parameters / sum(w.size for w in weights.values())
    speeds = bandwidths(seconds, parameters)
    fastest = max(speeds, key=lambda name: speeds[name])

    def row(name: str) -> Found:
        own, base = costs[name], costs[baseline(name)]
        state = steps.size(built[name].state) / parameters
        # Gradients are read; parameters and state are read and written.
        arrays = (3 + 2 * state) / _MOVED[fastest]
        times = seconds[name]
        return {
            **compared(name, baseline(name), seconds),
            "bytes_per_weight": 3 * width * quartiles(times, seconds[AXPY])[1],
            "of_bandwidth": arrays * quartiles(seconds[fastest], times)[1],
            "state": state,
            "trace_ratio": own["trace_s"] / base["trace_s"],
            "compile_ratio": own["compile_s"] / base["compile_s"],
            **own,
        }

    return [row(name) for name in built if name not in _MOVED]


def run_peers(name: str) -> list[Found]:
    """Time torch's libraries on a set, in each environment that has them."""
    seen: set[str] = set()
    results = []
    for found in in_torch("benchmarks.speed.torch_steps", [name]):
        rows = [row for row in found["rows"] if row["optimizer"] not in seen]
        seen |= {row["optimizer"] for row in rows}
        if rows:
            results.append({**found, "rows": rows})
    return results


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(("small",), ("psi_sgd(momentum)",), False, 1, 1, 1),
    measure=measure,
    report=report.report,
    page="step-time.md",
    figures=report.figures,
    sections=report.sections,
    selects=("sets", "only", "peers"),
    timed=True,
)
