"""Tables of the page on precision."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from benchmarks.harness import pages
from benchmarks.harness.results import Content

__all__ = ["report"]

CAPTIONS = (
    "**One step.** Its angle over that asked for, and the cosine of its"
    " displacement with the one asked for.",
    "**{turns:,} steps along one great circle.** By how much of the whole angle"
    " the weights have turned along it, and how far they are aside of it, in"
    " radians.",
    "**{steps:,} noisy steps.** The largest distance of a norm from the first"
    " one, as a part of it, over all steps and over the first tenth of them;"
    " the largest in eps, the spacing of the dtype at 1; and where no radius is"
    " stored, the logarithm of norm over first norm in the end, divided by the"
    " number of steps.",
)


def report(content: Content) -> str:
    """Return three tables, each below what it shows."""
    settings, versions = content["settings"], content["versions"]
    turns, seconds = content["parts"]["turns"], content["seconds"].values()
    tables = (
        _turns(
            turns, lambda x: f"{x['first_length']:.2f}, {x['first_cosine']:.3f}"
        ),
        _turns(turns, lambda x: f"{x['progress']:.3f}, {x['aside']:.0e}"),
        _norms(content["parts"]["norms"], settings["steps"]),
    )
    about = (
        f"Python {versions['python']}, JAX {versions['jax']}, optax"
        f" {versions['optax']}, on a CPU, in {sum(seconds):.0f} seconds."
    )
    captions = [pages.wrap(text.format(**settings)) for text in CAPTIONS]
    pairs = itertools.chain(*zip(captions, tables, strict=True))
    return "\n\n".join([*pairs, about])


def _turns(turns: dict[str, Any], cell: Callable[[Any], str]) -> str:
    angles = list(next(iter(turns.values())))
    rows = [["", *(f"{angle} rad" for angle in angles)]]
    for mode, found in turns.items():
        # What the network sees before what it is rounded from.
        for name in sorted(next(iter(found.values())), reverse=True):
            cells = [cell(found[angle][name]) for angle in angles]
            rows.append(
                [mode + ", the float32 copies" * (name == "copies"), *cells]
            )
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
