"""A table of the accuracies, and of the sizes of good regions."""

from typing import Any

import numpy as np

from benchmarks.experiments.sensitivity.grid import DECADES, widths
from benchmarks.harness import pages
from benchmarks.harness.results import Content
from benchmarks.optimizers import TUNED

__all__ = ["MARGIN", "accuracies", "label", "report"]

MARGIN = 0.01
"""Accuracies that are good are at most this much below the best one."""


def report(content: Content) -> str:
    """Return the table, with a row for each optimizer."""
    found = accuracies(content)
    best = max(accuracy.max() for accuracy in found.values())
    columns = (
        *("", "best accuracy, %", "good share of the grid, %"),
        *("of its own best, %", "good rates at one scale, decades"),
        "at all scales, decades",
    )
    rows = [columns]
    for name, accuracy in found.items():
        good = widths(accuracy >= best - MARGIN)
        own = widths(accuracy >= accuracy.max() - MARGIN)
        cells = (
            *(label(name), f"{100 * accuracy.max():.2f}"),
            *(f"{100 * good['share']:.0f}", f"{100 * own['share']:.0f}"),
            *(f"{good['at one scale']:.1f}", f"{good['at all scales']:.1f}"),
        )
        rows.append(cells)
    return f"{_about(content['settings'])}\n\n{pages.table(rows, right=True)}"


def accuracies(content: Content) -> dict[str, np.ndarray]:
    """Return mean accuracies of seeds, of shape (scales, rates, decays)."""
    settings, parts = content["settings"], content["parts"]

    def mean(name: str, scale: float) -> np.ndarray:
        seeds = range(settings["seeds"])
        return np.mean([parts[f"{name}/{scale:g}/{x}"] for x in seeds], axis=0)

    return {
        name: np.array([mean(name, scale) for scale in settings["scales"]])
        for name, *_ in settings["grids"]
    }


def label(name: str) -> str:
    """Return the label of an optimizer, without the words on its tuning."""
    return TUNED[name].label.split(",")[0]


def _about(settings: dict[str, Any]) -> str:
    widths = "-".join(map(str, settings["widths"]))
    decades = DECADES * (settings["rates"] - 1)
    return (
        f"An MLP {widths} with BatchNorm on {settings['train']} images of"
        f" {settings['dataset']}, {settings['epochs']} epochs in batches of"
        f" {settings['batch_size']}: {settings['rates']} rates over"
        f" {decades:g} decades, {settings['decays']} decays over"
        f" {settings['decays'] - 1}, filters multiplied by"
        f" {', '.join(f'{scale:g}' for scale in settings['scales'])}. Test"
        f" accuracies are means of {settings['seeds']} seeds. *Good* is an"
        f" accuracy at most {100 * MARGIN:g} percentage point below the best of"
        " all methods."
    )
