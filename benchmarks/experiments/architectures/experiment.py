"""Analyses of the architectures."""

import dataclasses
from functools import partial
from typing import Annotated, Any

from benchmarks.experiments.architectures.analysis import analyse
from benchmarks.experiments.architectures.networks import (
    ARCHITECTURES,
    Architecture,
)
from benchmarks.experiments.architectures.report import faults, report
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import one_of, some
from benchmarks.harness.results import Results


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the experiment."""

    # Architectures to analyse.
    architectures: Annotated[tuple[str, ...], some(one_of(ARCHITECTURES))] = (
        *ARCHITECTURES,
    )


def measure(settings: Settings, results: Results) -> None:
    """Measure a part for each architecture."""
    results.expect(len(settings.architectures))
    for name in settings.architectures:
        results.part(name, partial(_analyse, ARCHITECTURES[name]))


def _analyse(architecture: Architecture) -> dict[str, Any]:
    return analyse(architecture.make(), architecture.select)


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(architectures=("vgg", "qk_norm_tied")),
    measure=measure,
    report=report,
    page="architectures.md",
    faults=faults,
    selects=("architectures",),
)
