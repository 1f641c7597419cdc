"""Maps of accuracy over rate and decay, for each optimizer and scale."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.experiments.sensitivity.grid import points
from benchmarks.experiments.sensitivity.report import (
    MARGIN,
    accuracies,
    label,
)
from benchmarks.harness.results import Content

__all__ = ["figures"]


def figures(content: Content) -> dict[str, Figure]:
    """Draw the maps; dots are good, colours end 20 points below the best."""
    settings, found = content["settings"], accuracies(content)
    best = max(accuracy.max() for accuracy in found.values())
    rows, columns = len(found), len(settings["scales"])
    size = 2.2 * columns + 1.6, 1.55 * rows + 0.6
    drawn = Figure(figsize=size, layout="constrained")
    panels = drawn.subplots(
        rows, columns, squeeze=False, sharex="row", sharey="row"
    )
    image: Any = None
    for row, (name, rate, decay) in zip(panels, settings["grids"], strict=True):
        row[0].set_ylabel(f"{label(name)}\n\ndecay", fontsize=8)
        rates, decays = points(
            rate, decay, settings["rates"], settings["decays"]
        )
        for axes, accuracy in zip(row, found[name], strict=True):
            exponents = np.log10(rates), np.log10(decays)
            image = _draw(axes, *exponents, accuracy, best)
    for axes, scale in zip(panels[0], settings["scales"], strict=True):
        axes.set_title(f"filters x {scale:g}", fontsize=9)
    drawn.supxlabel("learning rate", fontsize=9)
    drawn.colorbar(
        image, ax=panels, label="test accuracy (%)", extend="min", shrink=0.6
    )
    return {"sensitivity": drawn}


def _draw(
    axes: Axes,
    rates: np.ndarray,
    decays: np.ndarray,
    accuracy: np.ndarray,
    best: float,
) -> Any:
    """Draw one map, from logarithms; return the image."""
    image = axes.pcolormesh(
        rates,
        decays,
        100 * accuracy.T,
        vmin=100 * (best - 0.2),
        vmax=100 * best,
        cmap="cividis",
    )
    rate, decay = np.nonzero(accuracy >= best - MARGIN)
    axes.plot(rates[rate], decays[decay], "o", color="black", markersize=3)
    for axis, ticks in ((axes.xaxis, rates[::2]), (axes.yaxis, decays)):
        axis.set_major_formatter("$10^{{{x:g}}}$")
        axis.set_ticks(ticks)
    axes.tick_params(labelsize=7)
    return image
