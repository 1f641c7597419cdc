"""Points of the grid, sizes of good regions of it, and maps of accuracy."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.harness import pages
from benchmarks.harness.figures import panels
from benchmarks.harness.results import Content
from benchmarks.optimizers import TUNED

MARGIN = 0.01
"""Accuracies that are good are at most this much below the best one."""

DECADES = 0.5
"""Decades from one rate to the next; decays are a decade apart."""


def points(settings: dict[str, Any], name: str) -> list[np.ndarray]:
    """Return the rates and the decays of an optimizer."""
    rate, decay = settings["lowest_rate"], settings["lowest_decay"]
    if "adam" in name:
        rate, decay = rate / 10, 100 * decay
    rates = 10.0 ** (DECADES * np.arange(settings["rates"]))
    return [rate * rates, decay * 10.0 ** np.arange(settings["decays"])]


def widths(good: np.ndarray) -> tuple[float, float, float]:
    """Return the size of a region, booleans `(scales, rates, decays)`.

    It is the share of all points, and the decades of rates at the best decay:
    the mean over scales, each with its own best decay, and those of rates that
    are good at every scale with one decay.
    """
    at_one = good.sum(1).max(1).mean()
    at_all = good.all(0).sum(0).max()
    return float(good.mean()), float(DECADES * at_one), float(DECADES * at_all)


def report(content: Content) -> str:
    """Return the table, with a row for each optimizer."""
    columns = (
        *("", "best accuracy, %", "good share of the grid, %"),
        *("of its own best, %", "good rates at one scale, decades"),
        "at all scales, decades",
    )
    rows, found = [columns], _accuracies(content)
    best = max(map(np.max, found.values()))
    for label, accuracy in found.items():
        top = accuracy.max()
        good, at_one, at_all = widths(accuracy >= best - MARGIN)
        own, *_ = widths(accuracy >= top - MARGIN)
        percent = f"{100 * top:.2f}", f"{100 * good:.0f}", f"{100 * own:.0f}"
        rows.append((label, *percent, f"{at_one:.1f}", f"{at_all:.1f}"))
    return f"{pages.settings(content)}\n\n{pages.table(rows, right=True)}"


def _accuracies(content):
    """Return means of seeds by label, of shape (scales, rates, decays)."""
    settings, parts = content["settings"], content["parts"]
    scales, seeds = settings["scales"], range(settings["seeds"])

    def mean(name, scale):
        return np.mean([parts[f"{name}/{scale:g}/{x}"] for x in seeds], axis=0)

    return {
        # Without the words on its tuning.
        TUNED[name].label.split(",")[0]: np.array(
            [mean(name, x) for x in scales]
        )
        for name in settings["optimizers"]
    }


def figures(content: Content) -> dict[str, Figure]:
    """Draw the maps; dots are good, colours end 20 points below the best."""
    settings, found = content["settings"], _accuracies(content)
    best = max(map(np.max, found.values()))
    shape = len(found), len(settings["scales"])
    drawn, axes = panels(shape, 1.2, sharex="row", sharey="row")
    names, image = settings["optimizers"], None
    rows = zip(axes, names, found.items(), strict=True)
    for row, name, (label, accuracies) in rows:
        row[0].set_ylabel(f"{label}\ndecay", fontsize=9)
        rates, decays = map(np.log10, points(settings, name))
        for panel, accuracy in zip(row, accuracies, strict=True):
            image = _draw(panel, rates, decays, accuracy, best)
    for panel, scale in zip(axes[0], settings["scales"], strict=True):
        panel.set_title(f"filters x {scale:g}", fontsize=9)
    drawn.supxlabel("learning rate", fontsize=10)
    bar: Any = {"mappable": image, "extend": "min", "aspect": 40}
    drawn.colorbar(ax=axes, label="test accuracy (%)", **bar)
    return {"sensitivity": drawn}


def _draw(axes, rates, decays, accuracy, best):
    """Draw one map, over logarithms; return the image."""
    low, high = 100 * (best - 0.2), 100 * best
    colours = {"vmin": low, "vmax": high, "cmap": "cividis"}
    axes.grid(visible=False)
    image = axes.pcolormesh(rates, decays, 100 * accuracy.T, **colours)
    rate, decay = np.nonzero(accuracy >= best - MARGIN)
    axes.plot(rates[rate], decays[decay], "o", color="black", markersize=2.5)
    for axis, ticks in ((axes.xaxis, rates[::4]), (axes.yaxis, decays[::2])):
        axis.set_major_formatter("$10^{{{x:g}}}$")
        axis.set_ticks(ticks)
    return image
