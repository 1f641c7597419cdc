"""Tuning of AdamW, pilots, and training at each factor of the rotation."""

import dataclasses
import itertools
from functools import partial

from benchmarks.experiments.language import report
from benchmarks.experiments.language.report import LABELS, best_pair, settling
from benchmarks.experiments.language.training import Runs
from benchmarks.experiments.tuning import TUNING_SEED
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Count, Positives
from benchmarks.harness.results import Results

PILOT_SEED, PILOTS = 2000, 4


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment."""

    # Learning rates of AdamW to try.
    rates: Positives = (0.003, 0.01, 0.03, 0.1)
    # Weight decays of AdamW to try with each.
    decays: Positives = (0.003, 0.03, 0.3)
    # Factors of the matched rotation.
    factors: Positives = (0.25, 0.5, 1.0, 2.0, 4.0)
    seeds: Count = 3  # Seeds of the final runs.
    steps: Count = 1000  # Steps of each training.
    chunks: Count = 20  # Validations during these.
    depth: Count = 2  # Layers.
    width: Count = 32  # Channels, a multiple of heads.
    heads: Count = 4  # Attention heads.
    length: Count = 64  # Characters in a piece of text.
    batch_size: Count = 8  # Pieces in a batch.
    held_out: Count = 256  # Pieces in validation and in the test.


def measure(settings: Settings, results: Results) -> None:
    """Tune AdamW, and train each method at each factor."""
    seeds = range(settings.seeds)
    pairs = list(itertools.product(settings.rates, settings.decays))
    final = list(itertools.product(LABELS, settings.factors, seeds))
    results.expect(1 + len(pairs) + len(seeds) + PILOTS + len(final))
    runs, content = Runs(settings), results.content
    results.part("groups", lambda: str(runs.groups))
    for rate, decay in pairs:
        run = partial(runs.train, "adamw", TUNING_SEED, rate, decay)
        results.part(f"tuning/{rate:g}/{decay:g}", run)
    for seed in seeds:
        run = partial(runs.train, "adamw", seed, *best_pair(content))
        results.part(f"tuned/{seed}", run)
    point, unit = settling(content), 1.0
    for pilot in range(PILOTS):
        run = partial(runs.pilot, PILOT_SEED + pilot, unit, *point)
        unit = results.part(f"pilot/{pilot}", run)
    for name, factor, seed in final:
        run = partial(runs.train, name, seed, *point, factor, unit)
        results.part(f"{name}/{factor:g}/{seed}", run)


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(
        rates=(0.05, 0.1),
        decays=(1.0,),
        factors=(0.5, 1.0),
        seeds=2,
        steps=12,
        chunks=3,
        depth=1,
        width=8,
        heads=2,
        length=8,
        held_out=4,
    ),
    measure=measure,
    report=report.report,
    figures=report.figures,
    page="experiments/language.md",
)
