"""Figure of validation losses over steps, and test losses over factors."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.experiments.language.findings import runs, test_losses
from benchmarks.experiments.language.methods import LABELS
from benchmarks.harness.colours import COLOURS, MARKERS
from benchmarks.harness.results import Content

__all__ = ["figures"]


def figures(content: Content) -> dict[str, Figure]:
    """Draw two panels."""
    drawn = Figure(figsize=(10, 4), layout="constrained")
    over_steps, over_factors = drawn.subplots(1, 2)
    _draw_steps(over_steps, content)
    _draw_factors(over_factors, content)
    for axes in (over_steps, over_factors):
        axes.grid(alpha=0.3)
    over_steps.legend(fontsize="small")
    return {"language": drawn}


def _draw_steps(axes: Axes, content: Content) -> None:
    """Draw validation losses at the matched rotation, means of seeds."""
    settings = content["settings"]
    steps = np.linspace(0, settings["steps"], settings["chunks"] + 1)[1:]
    for index, name in enumerate(LABELS):
        curves = [x["validation"] for x in runs(content, name, 1.0)]
        axes.plot(steps, np.mean(np.array(curves, float), 0), **_style(index))
    axes.set_xlabel("step")
    axes.set_ylabel("validation loss (nats a character)")
    axes.set_title("at the matched rotation", fontsize=10)
    # The losses at the beginning, before AdamW's third chunk, are cut off.
    [first, *_] = runs(content, "adamw", 1.0)
    axes.set_ylim(top=first["validation"][:3][-1])


def _draw_factors(axes: Axes, content: Content) -> None:
    """Draw test losses, means of seeds and their standard deviations."""
    factors = content["settings"]["factors"]
    for index, name in enumerate(LABELS):
        losses = [test_losses(runs(content, name, x)) for x in factors]
        axes.errorbar(
            factors,
            np.mean(losses, 1),
            np.std(losses, 1, ddof=1),
            marker=MARKERS[index],
            capsize=3,
            **_style(index),
        )
    axes.set_xscale("log", base=2)
    axes.set_xlabel("rotation, times the matched one")
    axes.set_ylabel("test loss (nats a character)")


def _style(index: int) -> dict[str, Any]:
    label = list(LABELS.values())[index].replace("`", "")
    return {"color": COLOURS[(1, 0, 7, 6)[index]], "label": label}
