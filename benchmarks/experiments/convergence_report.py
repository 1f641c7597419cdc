"""What came out of full-batch descent: tables and a figure."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import pages
from benchmarks.report import COLOURS

__all__ = ["bound", "figure", "table"]

METHODS = {"PSI-GD": "direction", "GD": "euclidean"}
"""The methods, with the gradient that their theorem is about."""


def bound(run: dict[str, Any], step: np.ndarray) -> np.ndarray:
    r"""What a theorem says of the least squared gradient of the first T steps.

    Args:
        run: one at the theorem's rates.
        step: T, one or more of them, from 1 on.

    Returns:
        \(2 L (L_0 - L_*) / T\), with the largest of the constants that the
        rates are made of, and 0 for the least loss, which no cross-entropy is
        below.
    """
    largest = 1 / min(run["rates"])
    return 2 * largest * run["loss"][0] / step


def table(content: dict[str, Any]) -> str:
    """Three tables in Markdown: the theorems, multiples, and scales.

    Args:
        content: that of the results.

    Returns:
        What goes onto the page.
    """
    settings = content["settings"]
    about = (
        f"All {settings['dataset']} training images in one batch;"
        f" {settings['width']} hidden units; {settings['steps']} steps; double"
        f" precision; one seed. Smoothness is measured at the start and"
        f" {settings['points']} later points of each path."
    )
    return "\n\n".join(
        [
            about,
            "**At the theorems' rates.**",
            _theorems(content),
            "**At multiples of them.** From scale 1.",
            _multiples(content),
            "**From other scales,** at the rates that are the theorems' at"
            " scale 1: the loss in the end.",
            _scales(content),
        ]
    )


def _theorems(content: dict[str, Any]) -> str:
    rows = [
        [
            *(
                "",
                "scale",
                "largest constant",
                "excess",
                "curvature times rate",
            ),
            *("steps below the promise", "least gradient²", "bound"),
            *("bound / least", "in direction space", "loss"),
        ]
    ]
    for name, scale, run in _at_theorem(content):
        least = run[METHODS[name]][-2]  # of fewer than T steps
        promised = float(bound(run, np.array(run["step"][-1])))
        rows.append(
            [
                name,
                scale,
                f"{1 / min(run['rates']):.3g}",
                f"{run['excess']:.3f}",
                f"{max(map(abs, run['curvature'])):.2f}",
                str(run["broken"]),
                f"{least:.2g}",
                f"{promised:.2g}",
                f"{promised / least:.3g}",
                f"{run['direction'][-2]:.2g}",
                f"{run['loss'][-1]:.4f}",
            ]
        )
    return pages.table(rows, right=True)


def _at_theorem(content: dict[str, Any]):
    """Method, scale and run, of those at a theorem's rates."""
    parts = content["parts"]
    yield "PSI-GD", "any", parts["PSI-GD, theorem, scale 1"]
    for scale in content["settings"]["scales"]:
        yield "GD", f"{scale:g}", parts[f"GD, theorem, scale {scale:g}"]


def _multiples(content: dict[str, Any]) -> str:
    multiples = content["settings"]["multiples"]
    rows = [["", *(f"x {multiple:g}" for multiple in multiples)]]
    quantities = {
        "loss": lambda run: f"{run['loss'][-1]:.4f}",
        "steps up": lambda run: str(run["rises"]),
        "curvature times rate": lambda run: (
            f"{max(map(abs, run['curvature'])):.2g}"
        ),
        "- at the end": lambda run: f"{abs(run['curvature'][-1]):.2g}",
    }
    for name in METHODS:
        runs = [content["parts"][f"{name}, multiple {m:g}"] for m in multiples]
        for what, show in quantities.items():
            rows.append([f"{name}: {what}", *map(show, runs)])
    return pages.table(rows, right=True)


def _scales(content: dict[str, Any]) -> str:
    scales = content["settings"]["scales"]
    rows = [["", *(f"scale {scale:g}" for scale in scales)]]
    for name in METHODS:
        runs = [
            content["parts"][f"{name}, rate kept, scale {s:g}"] for s in scales
        ]
        rows.append([name, *(f"{run['loss'][-1]:.6f}" for run in runs)])
    return pages.table(rows, right=True)


def figure(content: dict[str, Any]) -> Figure:
    """Draw the bounds, the multiples, the curvature and the scales.

    Args:
        content: that of the results.

    Returns:
        A figure of six panels.
    """
    drawn = Figure(figsize=(11, 7), layout="constrained")
    panels = drawn.subplots(2, 3)
    _draw_bounds(panels[0, 0], content)
    for name, axes in zip(METHODS, (panels[0, 1], panels[0, 2]), strict=True):
        _draw_family(
            axes,
            content,
            name,
            "multiple {:g}",
            content["settings"]["multiples"],
            "x",
        )
        axes.set_title(f"{name}, multiples of the rates", fontsize="medium")
    _draw_curvature(panels[1, 0], content)
    for name, axes in zip(METHODS, (panels[1, 1], panels[1, 2]), strict=True):
        _draw_family(
            axes,
            content,
            name,
            "rate kept, scale {:g}",
            content["settings"]["scales"],
            "scale",
        )
        axes.set_title(f"{name}, the same rates", fontsize="medium")
    for axes in panels.flat:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small")
    for left, right in (panels[0, 1:], panels[1, 1:]):
        right.sharey(left)
        left.autoscale(axis="y")
    return drawn


def _draw_bounds(axes: Axes, content: dict[str, Any]) -> None:
    for colour, (name, scale, run) in zip(
        COLOURS, _at_theorem(content), strict=False
    ):
        step = np.array(run["step"][1:])
        # The least of the first T points, T = step: the one before it, which
        # is that of an earlier step where steps are left out.
        axes.plot(
            step,
            run[METHODS[name]][:-1],
            color=colour,
            label=f"{name}, scale {scale}",
        )
        axes.plot(step, bound(run, step), color=colour, linestyle="--")
    axes.set_ylabel("least squared gradient")
    axes.set_title("theorems 2 and 4 (dashed: the bounds)", fontsize="medium")


def _draw_curvature(axes: Axes, content: dict[str, Any]) -> None:
    for index, multiple in enumerate(content["settings"]["multiples"]):
        for name, line in zip(METHODS, ("-", ":"), strict=True):
            run = content["parts"][f"{name}, multiple {multiple:g}"]
            axes.plot(
                np.maximum(run["seen"], 0.7),
                np.abs(run["curvature"]),
                color=COLOURS[index % len(COLOURS)],
                linestyle=line,
                label=f"x {multiple:g}" if line == "-" else None,
            )
    axes.axhline(2, color="grey", linewidth=0.8)
    axes.set_ylabel("curvature times rate")
    axes.set_title("PSI-GD, and GD (dotted)", fontsize="medium")


def _draw_family(
    axes: Axes,
    content: dict[str, Any],
    name: str,
    part: str,
    values: list[float],
    word: str,
) -> None:
    for index, value in enumerate(values):
        run = content["parts"][f"{name}, {part.format(value)}"]
        axes.plot(
            np.maximum(run["step"], 0.7),
            run["loss"],
            color=COLOURS[index % len(COLOURS)],
            label=f"{word} {value:g}",
            # Lines that lie on each other are to be seen.
            linestyle=(0, (3, 1 + index)) if word == "scale" else "-",
        )
    axes.set_ylabel("loss")
