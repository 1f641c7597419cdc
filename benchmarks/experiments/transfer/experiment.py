"""Tuning at the base, and rows of rates at all points of all factors."""

import dataclasses
import functools
import itertools
from functools import partial
from typing import Annotated, Any

from benchmarks import data
from benchmarks.experiments.transfer.choices import chosen
from benchmarks.experiments.transfer.figures import figures
from benchmarks.experiments.transfer.grids import extend, rates
from benchmarks.experiments.transfer.methods import METHODS, MUP, is_trained
from benchmarks.experiments.transfer.points import (
    BASE,
    ONE_SEED,
    Point,
    Sizes,
    points,
)
from benchmarks.experiments.transfer.problems import PROBLEMS
from benchmarks.experiments.transfer.report import faults, report
from benchmarks.experiments.transfer.trainings import train_all
from benchmarks.experiments.tuning import TUNING_SEED
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import (
    Count,
    Counts,
    Positives,
    at_least,
    one_of,
    some,
)
from benchmarks.harness.results import Results


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment."""

    # Problems.
    problems: Annotated[tuple[str, ...], some(one_of(PROBLEMS))] = (*PROBLEMS,)
    # Methods.
    methods: Annotated[tuple[str, ...], some(one_of(METHODS))] = (*METHODS,)
    # Factors of the width.
    widths: Counts = (2, 4, 8)
    # Factors of the batch size, at equal steps and at equal examples.
    batches: Counts = (4, 16)
    # Factors of the initial scale-invariant weights.
    scales: Positives = (0.0625, 16.0)
    # Factors of the depth.
    depths: Counts = (2, 4)
    # Factors of the number of steps.
    lengths: Counts = (4,)
    rates: Annotated[int, at_least(3)] = 8  # Rates, a factor of two apart.
    more_rates: Count = 4  # Rates of an extension.
    extensions: Annotated[int, at_least(0)] = 4  # Extensions at most.
    seeds: Count = 3  # Seeds of SGD, AdamW, psi_sgd and psi_adam.
    # Weight decays of SGD to try.
    sgd_decays: Positives = (0.0003, 0.003, 0.03)
    # Weight decays of AdamW to try.
    adamw_decays: Positives = (0.01, 0.1, 1.0)
    # Rates of Adam for ordinary parameters to try.
    ordinary_rates: Positives = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08)
    dataset: Annotated[str, one_of(data.NAMES)] = "fashion-mnist"  # Images.
    train: Count = 50000  # Training images.
    validation: Count = 5000  # Validation images.
    pool: Count = 2  # Side of the squares of pixels that become one.
    mlp_width: Count = 32  # Hidden units of a layer.
    mlp_depth: Count = 2  # Hidden layers.
    mlp_batch: Count = 16  # Images in a batch.
    mlp_steps: Count = 1600  # Steps.
    language_width: Count = 16  # Channels, a multiple of head_dim.
    language_depth: Count = 2  # Layers.
    language_batch: Count = 4  # Pieces of text in a batch.
    language_steps: Count = 800  # Steps.
    head_dim: Count = 8  # Channels of a head.
    characters: Count = 32  # Characters in a piece of text.
    pieces: Count = 256  # Pieces in validation and in the test.


def measure(settings: Settings, results: Results) -> None:
    """Measure the rows of each problem, point and method."""
    rows = [
        (point, name)
        for point in points(dataclasses.asdict(settings))
        for name in settings.methods
        if is_trained(name, point.factor)
    ]
    tuned = [name for name in settings.methods if name != MUP]
    each = len(rows) + len(tuned)
    results.expect(each * len(settings.problems))
    for problem in settings.problems:
        study = Study(settings, problem, results)
        for name in tuned:
            study.tune(name)
        for point, name in rows:
            study.row(point, name)


class Study:
    """The rows of one problem.

    Args:
        settings: those of the experiment.
        problem: its name.
        results: get the parts, and have those that choose later ones.
    """

    def __init__(self, settings: Settings, problem: str, results: Results):
        self.settings, self.name, self.results = settings, problem, results
        self.all = dataclasses.asdict(settings)
        names = ("width", "depth", "batch", "steps")
        self.base = Sizes(*(self.all[f"{problem}_{x}"] for x in names))
        # The methods of a point follow each other.
        make = partial(PROBLEMS[problem], settings)
        self.make = functools.lru_cache(maxsize=1)(make)

    def tune(self, name: str) -> None:
        """Try every tuned value with every rate of the grid, at the base."""
        method = METHODS[name]
        grid = rates(method.lowest[self.name], self.settings.rates)
        pairs = list(itertools.product(grid, self.all[method.tuned]))
        seeds = range(TUNING_SEED, TUNING_SEED + 1)
        self.results.part(
            f"{self.name}/{name}/tuning",
            partial(self._train, name, BASE, seeds, pairs),
        )

    def row(self, point: Point, name: str) -> None:
        """Measure a method at a point, with extensions of the grid."""
        settings, method = self.settings, METHODS[name]
        several = method.all_seeds and point.factor not in ONE_SEED
        seeds = range(settings.seeds if several else 1)
        tuned = chosen(self.results.content, self.name, name)

        def part(index: int, grid: list[float]) -> dict[str, Any]:
            pairs = [(rate, tuned) for rate in grid]
            return self.results.part(
                f"{self.name}/{name}/{point}/{index}",
                partial(self._train, name, point, seeds, pairs),
                steps=int(not index),
            )

        extend(
            part,
            method.lowest[self.name],
            count=settings.rates,
            more=settings.more_rates,
            extensions=settings.extensions,
        )

    def _train(self, name, point, seeds, pairs):
        sizes = self.base.at(point)
        losses = train_all(
            self.make(sizes), name, METHODS[name], sizes, seeds, pairs
        )
        pair_rates, tuned = zip(*pairs, strict=True)
        return {"rates": pair_rates, "tuned": tuned, **losses}


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(
        problems=("mlp",),
        methods=("adamw", "adamw_mup", "psi_sgd"),
        widths=(2,),
        batches=(2,),
        scales=(0.0625,),
        depths=(2,),
        lengths=(2,),
        rates=3,
        more_rates=1,
        extensions=0,
        seeds=2,
        adamw_decays=(0.01, 0.1),
        ordinary_rates=(0.01, 0.02),
        dataset="digits",
        train=500,
        validation=200,
        pool=1,
        mlp_width=4,
        mlp_depth=1,
        mlp_batch=8,
        mlp_steps=20,
        language_width=4,
        language_depth=1,
        language_batch=2,
        language_steps=10,
        head_dim=4,
        characters=8,
        pieces=4,
    ),
    measure=measure,
    report=report,
    figures=figures,
    faults=faults,
    page="experiments/transfer.md",
    selects=("problems",),
)
