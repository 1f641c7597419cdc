"""What the sensitivity experiment found: how wide good regions are, maps."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks import pages
from benchmarks.methods import METHODS

__all__ = ["figure", "grid", "table", "widths"]

MARGIN = 0.01
"""Accuracies this far below the best one are good."""

DECADES = 0.5
"""From one rate to the next."""


def grid(
    lowest_rate: float, lowest_decay: float, rates: int, decays: int
) -> tuple[np.ndarray, np.ndarray]:
    """The rates, by half a decade each, and the decays, by a decade each.

    Examples:
        >>> rates, decays = grid(0.01, 0.1, 3, 2)
        >>> rates.round(3).tolist(), decays.tolist()
        ([0.01, 0.032, 0.1], [0.1, 1.0])
    """
    return (
        lowest_rate * 10.0 ** (DECADES * np.arange(rates)),
        lowest_decay * 10.0 ** np.arange(decays),
    )


def widths(good: np.ndarray) -> dict[str, float]:
    """How large a good region is.

    Args:
        good: booleans, of shape `(scales, rates, decays)`.

    Returns:
        The share of all points that are good; the decades of rates that are,
        at the best decay: the mean over the scales, each with its own best
        decay, and of those rates that are good at every scale with one decay.

    Examples:
        >>> good = np.array([[[1], [1], [0]], [[0], [1], [1]]], bool)
        >>> {name: round(width, 2) for name, width in widths(good).items()}
        {'share': 0.67, 'at one scale': 1.0, 'at all scales': 0.5}
    """
    at_one = good.sum(1).max(1).mean()
    at_all = good.all(0).sum(0).max()
    return {
        "share": float(good.mean()),
        "at one scale": float(DECADES * at_one),
        "at all scales": float(DECADES * at_all),
    }


def table(content: dict[str, Any]) -> str:
    """A table with a row for each method.

    Args:
        content: that of the results.

    Returns:
        Markdown.
    """
    settings = content["settings"]
    found = _accuracies(content)
    best = max(accuracy.max() for accuracy in found.values())
    rows = [
        [
            "",
            "best accuracy, %",
            "good share of the grid, %",
            "of its own best, %",
            "good rates at one scale, decades",
            "at all scales, decades",
        ]
    ]
    for name, accuracy in found.items():
        good = widths(accuracy >= best - MARGIN)
        own = widths(accuracy >= accuracy.max() - MARGIN)
        rows.append(
            [
                _label(name),
                f"{100 * accuracy.max():.2f}",
                f"{100 * good['share']:.0f}",
                f"{100 * own['share']:.0f}",
                f"{good['at one scale']:.1f}",
                f"{good['at all scales']:.1f}",
            ]
        )
    return f"{_caption(settings)}\n\n{pages.table(rows, right=True)}"


def figure(content: dict[str, Any]) -> Figure:
    """Draw a map of rate by decay for each method and scale.

    Args:
        content: that of the results.

    Returns:
        The figure; dots are good, and colours end 20 points below the best.
    """
    settings = content["settings"]
    found = _accuracies(content)
    best = max(accuracy.max() for accuracy in found.values())
    shape = len(found), len(settings["scales"])
    drawn = Figure(
        figsize=(2.2 * shape[1] + 1.6, 1.55 * shape[0] + 0.6),
        layout="constrained",
    )
    panels = drawn.subplots(*shape, squeeze=False, sharex="row", sharey="row")
    image: Any = None
    for row, (name, lowest_rate, lowest_decay) in zip(
        panels, settings["grids"], strict=True
    ):
        rates, decays = grid(
            lowest_rate, lowest_decay, settings["rates"], settings["decays"]
        )
        row[0].set_ylabel(f"{_label(name)}\n\ndecay", fontsize=8)
        for axes, accuracy in zip(row, found[name], strict=True):
            image = axes.pcolormesh(
                np.log10(rates),
                np.log10(decays),
                100 * accuracy.T,
                vmin=100 * (best - 0.2),
                vmax=100 * best,
                cmap="cividis",
            )
            here = np.argwhere(accuracy >= best - MARGIN)
            axes.plot(
                np.log10(rates)[here[:, 0]],
                np.log10(decays)[here[:, 1]],
                "o",
                color="black",
                markersize=3,
            )
            axes.xaxis.set_major_formatter("$10^{{{x:g}}}$")
            axes.yaxis.set_major_formatter("$10^{{{x:g}}}$")
            axes.tick_params(labelsize=7)
            axes.set_xticks(np.log10(rates)[::2])
            axes.set_yticks(np.log10(decays))
    for axes, scale in zip(panels[0], settings["scales"], strict=True):
        axes.set_title(f"filters x {scale:g}", fontsize=9)
    drawn.supxlabel("learning rate", fontsize=9)
    drawn.colorbar(
        image, ax=panels, label="test accuracy (%)", extend="min", shrink=0.6
    )
    return drawn


def _label(name: str) -> str:
    """Without what is tuned of it: nothing is, here."""
    return METHODS[name].label.split(",")[0]


def _accuracies(content: dict[str, Any]) -> dict[str, np.ndarray]:
    """By method, the mean over seeds, of shape (scales, rates, decays)."""
    settings, parts = content["settings"], content["parts"]
    return {
        name: np.array(
            [
                np.mean(
                    [
                        parts[f"{name}/{scale:g}/{seed}"]
                        for seed in range(settings["seeds"])
                    ],
                    0,
                )
                for scale in settings["scales"]
            ]
        )
        for name, *_ in settings["grids"]
    }


def _caption(settings: dict[str, Any]) -> str:
    widths = "-".join(map(str, settings["widths"]))
    decades = DECADES * (settings["rates"] - 1)
    return (
        f"An MLP {widths} with BatchNorm on {settings['train']} images of"
        f" {settings['dataset']}, {settings['epochs']} epochs in batches of"
        f" {settings['batch_size']}: {settings['rates']} rates over"
        f" {decades:g} decades, {settings['decays']} decays over"
        f" {settings['decays'] - 1}, filters multiplied by"
        f" {', '.join(f'{scale:g}' for scale in settings['scales'])}. Test"
        f" accuracies are means of {settings['seeds']} seeds. *Good* is what is"
        f" at most {100 * MARGIN:g} percentage point below the best of all"
        " methods."
    )
