"""Tables and figures of surfaces and paths."""

import numpy as np
from matplotlib.figure import Figure

from benchmarks.experiments.dense import NETWORKS
from benchmarks.experiments.surfaces.paths import barrier
from benchmarks.experiments.surfaces.planes import COORDINATES
from benchmarks.harness import pages
from benchmarks.harness.colours import LOOKS
from benchmarks.harness.figures import key, legend_below, panels
from benchmarks.harness.results import Content

STARTS = ("same start", "other starts")
PATHS = ("line", "geodesic")
KINDS = {"trained": "-", "rescaled": "--"}
"""The networks whose contours are drawn, and their lines."""
ROUNDING = 1e-4
"""Of a loss of order 1 to 10: a mean of 1e3 terms, in float32."""


def faults(content: Content) -> list[str]:
    """Return the measures of the normalized network that depend on scale."""
    parts, found = content["parts"], []
    angles = parts["BatchNorm, surfaces"]["surfaces"]["angles"]
    if not angles["difference"] <= ROUNDING * angles["range"]:
        found.append("the surface by angles depends on the scale of filters.")
    for start in STARTS:
        kinds = parts[f"BatchNorm, paths, {start}"]["geodesic"]
        before, after = (np.array(x, float) for x in kinds.values())
        if not np.abs(before - after).max() <= ROUNDING * before.max():
            found.append(f"geodesics, {start}, depend on the scale of filters.")
    return found


def report(content: Content) -> str:
    """Return a table of surfaces and one of paths."""
    texts = (
        pages.settings(content),
        "**Surfaces.** The loss at the centre and its mean over the plane;"
        " *difference*: the largest at any point after rescaling; *identity*:"
        " the largest difference of the line along filters from the same"
        " points by angles.",
        _surfaces(content),
        "**Paths.** Barriers: the most that the loss rises above the line"
        " between its ends, ± standard deviation over pairs of solutions.",
        _paths(content),
    )
    return "\n\n".join(texts)


def _surfaces(content):
    head = ["", "coordinates", "centre", "mean", "mean, rescaled"]
    rows = [[*head, "difference", "identity"]]
    for network in NETWORKS:
        part = content["parts"][f"{network}, surfaces"]
        for name in COORDINATES:
            shown = part["surfaces"][name]
            means = [np.mean(shown[x]) for x in ("trained", "rescaled")]
            known = name == "filters"
            cells = [
                *(f"{x:.4f}" for x in (part["loss"], *means)),
                f"{shown['difference']:.2g}",
                f"{part['identity']:.2g}" if known else "",
            ]
            rows.append([network, name, *cells])
    return pages.table(rows, right=True)


def _paths(content):
    rows = [["", "solutions", "path", "barrier", "barrier, one end rescaled"]]
    for network in NETWORKS:
        for start in STARTS:
            part = content["parts"][f"{network}, paths, {start}"]
            for name in PATHS:
                cells = [
                    pages.spread(list(map(barrier, losses)), 4)
                    for losses in part[name].values()
                ]
                rows.append([network, start, name, *cells])
    return pages.table(rows, right=True)


def figures(content: Content) -> dict[str, Figure]:
    """Draw the surfaces, and the paths."""
    return {
        "surfaces": _draw_surfaces(content),
        "surfaces-paths": _draw_paths(content),
    }


def _draw_surfaces(content):
    settings = content["settings"]
    extent = settings["extent"]
    steps = np.linspace(-extent, extent, settings["side"])
    shape = len(NETWORKS), len(COORDINATES)
    drawn, axes = panels(shape, 2.6, sharex=True, sharey=True)
    for network, row in zip(NETWORKS, axes, strict=True):
        shown = content["parts"][f"{network}, surfaces"]["surfaces"]
        row[0].set_ylabel(network)
        for panel, name in zip(row, COORDINATES, strict=True):
            _draw_contours(panel, steps, shown[name])
            ticks = [-extent / 2, 0, extent / 2]
            panel.set(box_aspect=1, xticks=ticks, yticks=ticks)
            panel.grid(visible=False)
    for panel, name in zip(axes[0], COORDINATES, strict=True):
        panel.set_title(f"by {name}")
    looks = zip(KINDS.items(), LOOKS, strict=False)
    shown = [key(k, linestyle=line, color=x["color"]) for (k, line), x in looks]
    legend_below(drawn, len(shown), shown)
    return drawn


def _draw_contours(axes, steps, surfaces):
    """Draw both surfaces, at the same levels."""
    levels = _levels(surfaces["trained"])
    for (kind, line), look in zip(KINDS.items(), LOOKS, strict=False):
        values = np.array(surfaces[kind]).T
        style = {"colors": look["color"], "linestyles": line}
        axes.contour(steps, steps, values, levels, linewidths=1.5, **style)


def _levels(values):
    """Return levels of equal ratios over the range of a surface."""
    values = np.array(values, float)
    low = max(values.min(), 1e-3 * values.max())
    return np.geomspace(low, values.max(), 7)[1:]


def _draw_paths(content):
    drawn, axes = panels((len(NETWORKS), len(STARTS)), 2.4)
    for network, row in zip(NETWORKS, axes, strict=True):
        for start, panel in zip(STARTS, row, strict=True):
            part = content["parts"][f"{network}, paths, {start}"]
            for look, name in zip(LOOKS, PATHS, strict=False):
                for kind, style in (("trained", "-"), ("rescaled", ":")):
                    losses = np.mean(part[name][kind], 0)
                    width = 1.8 if kind == "trained" else 2.8
                    label = name + ", one end rescaled" * (kind == "rescaled")
                    t = np.linspace(0, 1, len(losses))
                    line = {"linestyle": style, "linewidth": width}
                    options = {"markevery": 0.25, "label": label}
                    panel.plot(t, losses, **look, **line, **options)
            panel.set(title=f"{network}, {start}", xlabel="t", ylabel="loss")
            panel.locator_params(axis="y", nbins=5)
    legend_below(drawn, len(PATHS))
    return drawn
