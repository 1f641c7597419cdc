"""Settings and parts of the experiment on sharpness."""

import dataclasses
import itertools
from functools import partial
from typing import Annotated

from benchmarks import data
from benchmarks.experiments.full_batch import Lengths, make_problem
from benchmarks.experiments.noisy_data import split
from benchmarks.experiments.sharpness import decay, grid
from benchmarks.experiments.sharpness.report import figures, report
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import (
    Count,
    Counts,
    Positive,
    Positives,
    Share,
    one_of,
    some,
)
from benchmarks.harness.results import Results


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment."""

    dataset: Annotated[str, one_of(data.NAMES)] = "fashion-mnist"  # Data set.
    train: Count = 1000  # Training images.
    pool: Count = 2  # Side of the squares of pixels that become one.
    widths: tuple[Count, ...] = (32, 32)  # Hidden units of each layer.
    rate: Positive = 0.3  # Learning rate of full-batch descent.
    decay: Positive = 2e-3  # Decay of grouped weights in full-batch descent.
    steps: Count = 8000  # Steps of full-batch descent.
    record: Count = 50  # Steps from one warm measurement to the next.
    check: Count = 500  # Steps from one cold measurement to the next.
    # Learning rate times decay of the loss of three weights.
    products: Positives = (1e-2, 1e-3)
    # Learning rates of the grid.
    rates: Positives = (0.01, 0.03, 0.1, 0.3)
    # Batch sizes of the grid.
    batch_sizes: Counts = (16, 64, 256)
    # Additions to the training of a plain network.
    additions: Annotated[tuple[str, ...], some(one_of(grid.LABELS))] = tuple(
        grid.LABELS
    )
    updates: Count = 4000  # Steps of each training of the grid.
    seeds: Count = 3  # Seeds of the grid.
    sam_radius: Positive = 0.1  # Norm of the perturbations of SAM.
    dropout: Share = 0.2  # Share of hidden units that are dropped.


def measure(settings: Settings, results: Results) -> None:
    """Measure a part for each descent, each flow and each point of the grid."""
    sizes = settings.train, 0, settings.pool
    _, dataset = split(settings.dataset, *sizes, 0.0)
    points = list(
        itertools.product(
            settings.additions, settings.batch_sizes, settings.rates
        )
    )
    results.expect(2 + len(settings.products) + len(points))
    problem = make_problem(dataset, settings.widths, seed=0)
    lengths = Lengths(settings.steps, settings.record, settings.check)
    descend = decay.make_decay_run(problem, lengths)
    for name, strength in (("decay", settings.decay), ("no decay", 0.0)):
        results.part(name, partial(descend, settings.rate, strength))
    for product in settings.products:
        part = partial(decay.flow, product, times=16, last=1.6)
        results.part(f"flow, {product:g}", part)
    trainings = grid.Sizes(
        settings.widths,
        settings.updates,
        settings.seeds,
        settings.sam_radius,
        settings.dropout,
    )
    train = {
        name: grid.make_training(dataset, name, trainings)
        for name in settings.additions
    }
    for name, batch_size, rate in points:
        part = partial(train[name], rate, batch_size)
        results.part(f"{name}, {batch_size}, {rate:g}", part)


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(
        dataset="digits",
        train=100,
        pool=1,
        widths=(8,),
        steps=40,
        record=10,
        check=20,
        products=(1e-2,),
        rates=(0.1, 0.3),
        batch_sizes=(50,),
        additions=("sam", "batch_norm"),
        updates=2,
        seeds=2,
    ),
    measure=measure,
    report=report,
    figures=figures,
    page="experiments/sharpness.md",
)
