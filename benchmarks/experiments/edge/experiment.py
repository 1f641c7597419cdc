"""Runs of the experiment at the edge of stability."""

import dataclasses
from functools import partial
from typing import Annotated, Any

from benchmarks import data
from benchmarks.experiments.edge.methods import METHODS, Method
from benchmarks.experiments.edge.report import figures, report
from benchmarks.experiments.full_batch import (
    Lengths,
    Problem,
    make_descent,
    make_problem,
    rising_share,
    short,
)
from benchmarks.experiments.noisy_data import split
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Count, Positives, one_of, some
from benchmarks.harness.results import Results


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment."""

    dataset: Annotated[str, one_of(data.NAMES)] = "fashion-mnist"  # Data set.
    train: Count = 1000  # Training images, all in one batch.
    pool: Count = 2  # Side of the squares of pixels that become one.
    widths: tuple[Count, ...] = (32, 32)  # Hidden units of each layer.
    # Optimizers.
    methods: Annotated[tuple[str, ...], some(one_of(METHODS))] = tuple(METHODS)
    # Factors of the optimizers' learning rates.
    multiples: Positives = (0.1, 0.3, 1.0)
    steps: Count = 4000  # Steps.
    record: Count = 10  # Steps from one warm measurement to the next.
    check: Count = 200  # Steps from one cold measurement to the next.
    seed: int = 0  # Seed of the initial weights.


def measure(settings: Settings, results: Results) -> None:
    """Measure a part for each optimizer and rate."""
    sizes = settings.train, 0, settings.pool
    _, dataset = split(settings.dataset, *sizes, 0.0)
    problem = make_problem(dataset, settings.widths, settings.seed)
    results.expect(len(settings.methods) * len(settings.multiples))
    for name in settings.methods:
        method = METHODS[name]
        run = partial(_run, method, _descent(settings, problem, method))
        for multiple in settings.multiples:
            rate = float(f"{multiple * method.rate:.3g}")
            results.part(f"{name}, {multiple:g}", partial(run, rate))


def _descent(settings: Settings, problem: Problem, method: Method) -> Any:
    return make_descent(
        problem,
        lambda rate: method.build(rate, problem.groups),
        lambda *where: {"top": method.curvature(problem, *where)},
        Lengths(settings.steps, settings.record, settings.check),
    )


def _run(method, descend, rate):
    found = descend(rate)
    every = len(found["loss"]) // len(found["warm"]["top"])
    return {
        "rate": rate,
        "threshold": method.threshold(rate),
        "warm": short(found["warm"]["top"]),
        "cold": short(found["cold"]["top"]),
        "residual": short(found["residual"]["top"]),
        "loss": short(found["loss"][every - 1 :: every]),
        "rises": rising_share(found["loss"]),
    }


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(
        dataset="digits",
        train=100,
        pool=1,
        widths=(8,),
        methods=("gd", "psi_adam"),
        multiples=(1.0,),
        steps=40,
        record=10,
        check=20,
    ),
    measure=measure,
    report=report,
    figures=figures,
    page="experiments/edge.md",
)
