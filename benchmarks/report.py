"""What the rescaling experiment found: a table, a figure, a file of numbers."""

import importlib.metadata
import json
import pathlib
import platform
import textwrap
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks import pages
from benchmarks.harness import files

__all__ = ["figure", "table", "versions", "write"]

PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy", "scikit-learn")

# The colours of Okabe and Ito, which the colour-blind can tell apart.
COLOURS = (
    *("#E69F00", "#D55E00", "#CC79A7", "#56B4E9"),
    *("#999999", "#000000", "#0072B2", "#009E73"),
)
MARKERS = "osv^DPX*"


def versions() -> dict[str, str]:
    """Return the versions of what the numbers depend on.

    Examples:
        >>> sorted(versions())[:3]
        ['flax', 'jax', 'jaxlib']
    """
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}


def table(results: dict[str, Any]) -> str:
    """Make a table of test accuracy by method and scale, in Markdown.

    Args:
        results: what `benchmarks.rescaling.run` returns.

    Returns:
        The caption and the table: in percent, the mean over the seeds and,
        where there is more than one seed, their standard deviation.
    """
    scales = [f"x {scale:g}" for scale in results["scales"]]
    rows = [["", *scales, "tuned to"]]
    for method in results["methods"].values():
        cells = map(_cell, method["accuracy"].values())
        rows.append([method["label"], *cells, _chosen(method)])
    return "\n".join([_caption(results), "", pages.table(rows)])


def figure(results: dict[str, Any]) -> Figure:
    """Draw test accuracy against the scale of the initial weights.

    Args:
        results: what `benchmarks.rescaling.run` returns.

    Returns:
        A figure with a line for each method, and a band of one standard
        deviation over the seeds on either side.
    """
    drawn = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = drawn.subplots()
    for index, (name, method) in enumerate(results["methods"].items()):
        accuracies = 100 * np.array(list(method["accuracy"].values()))
        mean = accuracies.mean(1)
        spread = accuracies.std(1, ddof=1) if accuracies.shape[1] > 1 else 0.0
        colour = COLOURS[index % len(COLOURS)]
        axes.plot(
            results["scales"],
            mean,
            color=colour,
            label=method["label"],
            linestyle="-" if name.startswith("psi") else "--",
            marker=MARKERS[index % len(MARKERS)],
        )
        axes.fill_between(
            results["scales"],
            mean - spread,
            mean + spread,
            color=colour,
            alpha=0.12,
            linewidth=0,
        )
    axes.set_xscale("log")
    axes.set_xlabel("scale of the initial filters")
    axes.set_ylabel(f"test accuracy on {results['dataset']} (%)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return drawn


def write(results: dict[str, Any], folder: pathlib.Path) -> list[pathlib.Path]:
    """Write the numbers (JSON) and the figure (PNG).

    Args:
        results: what `benchmarks.rescaling.run` returns.
        folder: where to; it is made if it is missing.

    Returns:
        The paths of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"rescaling-{results['dataset']}"
    numbers, image = stem.with_suffix(".json"), stem.with_suffix(".png")
    text = json.dumps(results, indent=2, allow_nan=False)
    files.write(numbers, text + "\n")
    files.write_figure(image, figure(results))
    return [numbers, image]


def _caption(results: dict[str, Any]) -> str:
    trials = {len(method["trials"]) for method in results["methods"].values()}
    caption = (
        f"Test accuracy (%) on {results['dataset']} of a BatchNorm MLP whose "
        "initial filters are multiplied by a number: mean ± standard deviation "
        f"of {results['seeds']} seeds, {results['epochs']} epochs, cosine "
        "decay. All methods start from the same weights. Each was tuned where "
        f"nothing is multiplied, with {' or '.join(map(str, trials))} trials on"
        " validation data; a star marks a choice at the edge of its grid."
    )
    return textwrap.fill(caption, 80)


def _cell(accuracies: list[float]) -> str:
    percent = 100 * np.array(accuracies)
    if len(percent) == 1:
        return f"{percent[0]:.1f}"
    return f"{percent.mean():.1f} ± {percent.std(ddof=1):.1f}"


def _chosen(method: dict[str, Any]) -> str:
    """Say which hyperparameters were chosen, with a star at an edge."""
    parts = []
    for name, short in (("learning_rate", "lr"), ("weight_decay", "wd")):
        if name == "learning_rate" or method["chosen"][name]:
            star = "*" if name in method["at_edge"] else ""
            parts.append(f"{short} {method['chosen'][name]:g}{star}")
    return ", ".join(parts)
