"""All turns, all runs whose norms are followed, and their tables."""

import dataclasses
import math
from typing import Annotated, Any

import jax.numpy as jnp

from benchmarks.experiments.precision.modes import MODES
from benchmarks.experiments.precision.norms import RUNS, STRETCHES, norms
from benchmarks.experiments.precision.turns import turns
from benchmarks.harness import pages
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Count, Positives, at_least, one_of, some
from benchmarks.harness.results import Content, Results


@dataclasses.dataclass(frozen=True)
class Settings:
    """Modes, angles and numbers of steps."""

    # Dtypes of the weights, with their wrappers.
    modes: Annotated[tuple[str, ...], some(one_of(MODES))] = tuple(MODES)
    # Radians a step along great circles.
    angles: Positives = (1e-2, 3e-3, 1e-3, 1e-4, 1e-5)
    turns: Count = 1000  # Number of these steps.
    # Number of noisy steps, 100 or more.
    steps: Annotated[int, at_least(STRETCHES)] = 1_000_000


def measure(settings: Settings, results: Results) -> None:
    """Measure turns, by mode and angle, and a list of norms."""
    modes, angles = settings.modes, settings.angles
    runs = [run for run in RUNS if run.mode in modes]
    results.expect(2)
    results.part("turns", lambda: turns(modes, angles, settings.turns))
    results.part("norms", lambda: [norms(run, settings.steps) for run in runs])


def report(content: Content) -> str:
    """Return three tables, each below its title."""
    settings, versions = content["settings"], content["versions"]
    parts, seconds = content["parts"], content["seconds"].values()
    return "\n\n".join(
        [
            "**One step**",
            _turns(parts["turns"], "{first_length:.2f}, {first_cosine:.3f}"),
            f"**{settings['turns']:,} steps along one great circle**",
            _turns(parts["turns"], "{progress:.3f}, {aside:.0e}"),
            f"**{settings['steps']:,} noisy steps**",
            _norms(parts["norms"], settings["steps"]),
            f"Python {versions['python']}, JAX {versions['jax']}, optax"
            f" {versions['optax']}, on a CPU, in {sum(seconds):.0f} seconds.",
        ]
    )


def _turns(turns: dict[str, Any], form: str) -> str:
    rows = [["", *(f"{angle} rad" for angle in next(iter(turns.values())))]]
    for mode, found in turns.items():
        several = list(found.values())
        # What the network sees before what it is rounded from.
        for name in sorted(several[0], reverse=True):
            copies = ", the float32 copies" * (name == "copies")
            cells = [form.format(**seen[name]) for seen in several]
            rows.append([mode + copies, *cells])
    return pages.table(rows)


def _norms(runs: list[dict[str, Any]], steps: int) -> str:
    head = ["weights", "optimizer", "radius", "rad a step"]
    rows = [[*head, "largest", "first tenth", "in eps", "drift a step"]]
    for run in runs:
        eps = float(jnp.finfo(run["mode"].split(",")[0]).eps)
        stored = run["radius"] != "none"
        drift = math.log1p(run["last"]) / steps
        rows.append(
            [
                run["mode"],
                f"`{run['optimizer']}`",
                "stored" if stored else "`None`",
                f"{run['angle']:.2f}",
                f"{run['largest']:.1e}",
                f"{run['early']:.1e}",
                f"{run['largest'] / eps:.2f}",
                "" if stored else f"{drift:+.0e}",
            ]
        )
    return pages.table(rows)


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings(("bfloat16, master weights",), (1e-2,), 20, STRETCHES),
    measure=measure,
    report=report,
    page="precision.md",
)
