"""Tables of the page on precision."""

import math
from typing import Any

import jax.numpy as jnp

from benchmarks.harness import pages
from benchmarks.harness.results import Content


def report(content: Content) -> str:
    """Return three tables, each below its title."""
    settings, versions = content["settings"], content["versions"]
    turns, seconds = content["parts"]["turns"], content["seconds"].values()
    return "\n\n".join(
        [
            "**One step**",
            _turns(turns, "{first_length:.2f}, {first_cosine:.3f}"),
            f"**{settings['turns']:,} steps along one great circle**",
            _turns(turns, "{progress:.3f}, {aside:.0e}"),
            f"**{settings['steps']:,} noisy steps**",
            _norms(content["parts"]["norms"], settings["steps"]),
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
