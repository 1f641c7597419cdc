"""Figure of the bounds, the multiples, the curvature and the scales."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.experiments.convergence.report import (
    METHODS,
    at_theorem,
    bound,
)
from benchmarks.harness.colours import COLOURS
from benchmarks.harness.figures import styled
from benchmarks.harness.results import Content

FIRST = 0.7  # in place of step 0 on a logarithmic axis


@styled
def figures(content: Content) -> dict[str, Figure]:
    """Draw six panels."""
    drawn = Figure(figsize=(11, 7))
    panels = drawn.subplots(2, 3)
    _draw_bounds(panels[0, 0], content)
    _draw_curvature(panels[1, 0], content)
    for name, above, below in zip(METHODS, *panels[:, 1:], strict=True):
        _draw_losses(above, content, f"{name}, multiple", "multiples")
        above.set_title(f"{name}, multiples of the rates")
        _draw_losses(below, content, f"{name}, rate kept, scale", "scales")
        below.set_title(f"{name}, the same rates")
    for axes in panels.flat:
        axes.set(xscale="log", yscale="log", xlabel="step")
        axes.legend(fontsize="x-small")
    for left, right in panels[:, 1:]:
        right.sharey(left)
        left.autoscale(axis="y")
    return {"convergence": drawn}


def _draw_bounds(axes: Axes, content: Content) -> None:
    runs = zip(COLOURS, at_theorem(content), strict=False)
    for colour, (name, scale, run) in runs:
        # The least of the first T points is that of an earlier one.
        step, least = np.array(run["step"][1:]), run[METHODS[name]][:-1]
        axes.plot(step, least, color=colour, label=f"{name}, scale {scale}")
        axes.plot(step, bound(run, step), color=colour, linestyle="--")
    axes.set_ylabel("least squared gradient")
    axes.set_title("theorems 2 and 4 (dashed: the bounds)")


def _draw_curvature(axes: Axes, content: Content) -> None:
    for index, multiple in enumerate(content["settings"]["multiples"]):
        for name, line in zip(METHODS, ("-", ":"), strict=True):
            run = content["parts"][f"{name}, multiple {multiple:g}"]
            axes.plot(
                np.maximum(run["seen"], FIRST),
                np.abs(run["curvature"]),
                color=COLOURS[index % len(COLOURS)],
                linestyle=line,
                label=f"x {multiple:g}" if line == "-" else None,
            )
    axes.axhline(2, color="grey", linewidth=0.8)
    axes.set_ylabel("curvature times rate")
    axes.set_title("PSI-GD, and GD (dotted)")


def _draw_losses(axes: Axes, content: Content, part: str, varied: str) -> None:
    of_scales = varied == "scales"
    for index, value in enumerate(content["settings"][varied]):
        run = content["parts"][f"{part} {value:g}"]
        axes.plot(
            np.maximum(run["step"], FIRST),
            run["loss"],
            color=COLOURS[index % len(COLOURS)],
            label=f"{'scale' if of_scales else 'x'} {value:g}",
            # Gaps of different lengths show lines that lie on each other.
            linestyle=(0, (3, 1 + index)) if of_scales else "-",
        )
    axes.set_ylabel("loss")
