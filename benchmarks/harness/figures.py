"""The style of figures, and the parts that they share.

A figure is as wide as the column of a page, so that its fonts have the size
that they are given, and is drawn with two pixels for each of the page.
"""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.harness.colours import DARK_GREY, GREY

WIDTH = 7.5
"""Inches of a page's column, of 96 pixels each."""

STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": DARK_GREY,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
    "font.size": 10,
    "grid.alpha": 0.3,
    "legend.edgecolor": "none",
    "legend.fontsize": 9,
    "legend.handlelength": 2.4,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}
"""Parameters of matplotlib, for `rc_context` while figures are drawn."""

BEHIND: dict[str, Any] = {"color": GREY, "linewidth": 1, "zorder": 1}
"""Lines behind those that the figure is about."""

SPARSE: dict[str, Any] = {"markevery": 0.12}
"""Few markers on a line of many points."""

Shape = tuple[int, int]


def panels(shape: Shape, height: float, **options: Any) -> tuple[Figure, Any]:
    """Return a figure and its panels, an array of this shape.

    Args:
        shape: rows and columns.
        height: inches of a row.
        options: those of `Figure.subplots`.

    Examples:
        >>> figure, axes = panels((2, 3), 2.5)
        >>> figure.get_size_inches().tolist(), axes.shape
        ([7.5, 5.0], (2, 3))
    """
    figure = Figure(figsize=(WIDTH, height * shape[0]))
    return figure, figure.subplots(*shape, squeeze=False, **options)


def few_ticks(axis: Any) -> None:
    """Label 1, 2 and 5 times powers of ten on an axis of few decades.

    Call it when the lines are drawn.
    """
    low, high = axis.get_view_interval()
    if high > 200 * low:
        return
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def legend_below(figure: Figure, columns: int, handles: Any = None) -> None:
    """List the lines of the first panel, or other ones, below the panels."""
    handles = handles or figure.axes[0].get_legend_handles_labels()[0]
    options: Any = {"loc": "outside lower center", "ncols": columns}
    figure.legend(handles=handles, **options)


def legend_under(axes: Any, handles: Any = None) -> None:
    """List the lines of a panel under its axis."""
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.22)}
    handles = handles or axes.get_legend_handles_labels()[0]
    axes.legend(handles=handles, **place)


def label_end(
    axes: Any, y: float, text: str, color: str, **options: Any
) -> None:
    """Write beside the right end of a line."""
    axes.annotate(
        text,
        (1.02, y),
        xycoords=axes.get_yaxis_transform(),
        color=color,
        verticalalignment="center",
        annotation_clip=False,
        **options,
    )


def key(label: str, **options: Any) -> Line2D:
    """Return the line of a legend."""
    style: dict[str, Any] = {"color": DARK_GREY, **options}
    return Line2D([], [], label=label, **style)


def keys(labels: Sequence[str], styles: Sequence[Any]) -> list[Line2D]:
    """Return the lines of a legend for styles of line."""
    pairs = zip(labels, styles, strict=False)
    return [key(label, linestyle=style) for label, style in pairs]
