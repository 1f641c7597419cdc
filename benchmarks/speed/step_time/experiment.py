"""The measurement: sets of parameters, and a row for each optimizer."""

import dataclasses
import functools
from typing import Annotated, Any

from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Count, one_of, some
from benchmarks.harness.results import Results
from benchmarks.speed import steps
from benchmarks.speed.sets import SETS
from benchmarks.speed.step_time import cases, report
from benchmarks.speed.step_time.cases import CASES
from benchmarks.speed.step_time.traffic import traffic
from benchmarks.speed.step_time.training import NETWORKS, measure_share
from benchmarks.speed.turns import Times, compared

Found = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the measurement.

    Attributes:
        sets: Sets of parameters.
        only: Optimizers, beside their baselines; by default those of the set.
        training: Time the passes of two networks as well.
        batch: Number of images of a pass.
        turns: Number of turns of each optimizer.
        steps: Number of steps of a turn, at most.
        compiles: Number of times that each is compiled.
    """

    sets: Annotated[tuple[str, ...], some(one_of(SETS))] = report.SHOWN
    only: Annotated[tuple[str, ...], some(one_of(CASES))] = ()
    training: bool = True
    batch: Count = 128
    turns: Count = 9
    steps: Count = 5
    compiles: Count = 2


def measure(settings: Settings, results: Results) -> None:
    """Measure a part for each set; rows that are not asked for stay."""
    results.expect(len(settings.sets) + settings.training)
    for name in settings.sets:
        before = results.content["parts"].get(name, {"rows": []})
        results.part(name, functools.partial(_part, name, settings, before))
    if settings.training:
        sizes = settings.batch, settings.turns, settings.steps
        results.part("training", lambda: _shares(*sizes))


def _part(name: str, settings: Settings, before: Found) -> Found:
    sizes = settings.turns, settings.steps, settings.compiles
    found = measure_set(name, *sizes, settings.only)
    rows = {x["optimizer"]: x for x in before["rows"] + found["rows"]}
    found["rows"] = [rows[case] for case in CASES if case in rows]
    return found


def _shares(*sizes: int) -> Found:
    return {name: measure_share(x, *sizes) for name, x in NETWORKS.items()}


def measure_set(
    name: str, turns: int, count: int, compiles: int, only: tuple[str, ...] = ()
) -> Found:
    """Measure a row for each optimizer, in turns with all of its baseline.

    Those of another baseline follow, so that memory has to hold fewer.
    """
    chosen = SETS[name]
    params, gradients = cases.draw(chosen)
    names, rows = cases.chosen(chosen, only), []
    for baseline in dict.fromkeys(CASES[x].baseline for x in names):
        here = [x for x in names if CASES[x].baseline == baseline]
        built = {x: cases.build(x, params, chosen.grouped) for x in here}
        state = {x: steps.size(case.state) for x, case in built.items()}
        found = steps.time_cases(built, gradients, turns, count, compiles)
        for x in here:
            copies = state[x] / steps.size(params)
            size = {"bytes": traffic(x, chosen.dtype), "state": copies}
            rows.append({**row(x, *found), **size})
    return {"weights": chosen.weights, "dtype": chosen.dtype, "rows": rows}


def row(name: str, times: Times, costs: dict[str, Found]) -> Found:
    """Return what was timed of an optimizer, with ratios to its baseline."""
    baseline = CASES[name].baseline
    own, base = costs[name], costs[baseline]
    return {
        **compared(name, baseline, times),
        "trace_ratio": own["trace_cpu_s"] / base["trace_cpu_s"],
        "compile_ratio": own["compile_cpu_s"] / base["compile_cpu_s"],
        **own,
    }


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(("small",), ("psi_sgd(momentum)",), False, 1, 1, 1, 1),
    measure=measure,
    report=report.report,
    page="step-time.md",
    sections=report.sections,
    selects=("sets", "only", "training"),
    timed=True,
)
