"""The tables of docs/precision.md, from the numbers of benchmarks.precision."""

import math
import textwrap
from typing import Any

import jax.numpy as jnp

from benchmarks import pages

__all__ = ["section"]

_SEEN = {
    "weights": "",
    "copies": ", the float32 copies",
}


def section(results: dict[str, Any]) -> str:
    """What goes between the markers of the page.

    Args:
        results: what `benchmarks.precision.run` returns.

    Returns:
        Three tables, each after what it shows.
    """
    versions = results["versions"]
    about = (
        f"Python {versions['python']}, JAX {versions['jax']}, optax"
        f" {versions['optax']}, on a CPU, in {results['seconds']:.0f}"
        " seconds."
    )
    return "\n\n".join(
        [
            _wrap(
                "**One step.** Its angle over that asked for, and the cosine"
                " of its displacement with the one asked for."
            ),
            _turns(results["turns"], _first),
            _wrap(
                f"**{results['steps']} steps along one great circle.** By how"
                " much of the whole angle the weights have turned along it,"
                " and how far they are aside of it, in radians."
            ),
            _turns(results["turns"], _end),
            _wrap(
                f"**{results['long']:,} noisy steps.** The largest distance of"
                " a norm from the first one, as a part of it, over all steps"
                " and over the first tenth of them; the largest in eps, the"
                " spacing of the dtype at 1; and where no radius is stored,"
                " the logarithm of norm over first norm in the end, divided by"
                " the number of steps."
            ),
            _norms(results),
            about,
        ]
    )


def _wrap(text: str) -> str:
    return textwrap.fill(text, 80)


def _turns(turns: dict[str, Any], cell) -> str:
    angles = list(next(iter(turns.values())))
    rows = [["", *(f"{angle} rad" for angle in angles)]]
    for mode, found in turns.items():
        # What the network sees before what it is rounded from.
        for name in sorted(next(iter(found.values())), reverse=True):
            cells = [cell(found[angle][name]) for angle in angles]
            rows.append([mode + _SEEN[name], *cells])
    return pages.table(rows)


def _first(found: dict[str, float]) -> str:
    return f"{found['first_length']:.2f}, {found['first_cosine']:.3f}"


def _end(found: dict[str, float]) -> str:
    return f"{found['progress']:.3f}, {found['aside']:.0e}"


def _norms(results: dict[str, Any]) -> str:
    head = ["weights", "optimizer", "radius", "rad a step"]
    rows = [[*head, "largest", "first tenth", "in eps", "drift a step"]]
    for found in results["norms"]:
        dtype = found["mode"].split(",")[0]
        rows.append(
            [
                found["mode"],
                f"`{found['optimizer']}`",
                "stored" if found["radius"] else "`None`",
                f"{found['angle']:.2f}",
                f"{found['largest']:.1e}",
                f"{found['early']:.1e}",
                f"{found['largest'] / float(jnp.finfo(dtype).eps):.2f}",
                "" if found["radius"] else _drift(found, results["long"]),
            ]
        )
    return pages.table(rows)


def _drift(found: dict[str, Any], steps: int) -> str:
    return f"{math.log1p(found['last']) / steps:+.0e}"
