"""Tables and figure of smoothness along training."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.experiments.dense import NETWORKS
from benchmarks.harness import pages
from benchmarks.harness.colours import LOOKS
from benchmarks.harness.figures import SPARSE, few_ticks, legend_below, panels
from benchmarks.harness.results import Content

MEASURES = {
    "range": "loss range",
    "change": "change of the gradient",
    "cosine": "least cosine",
    "smoothness": "effective smoothness",
}
SHOWN = ("range", "change", "smoothness")
DRAWN = ("range", "smoothness")
COORDINATES = ("weights", "directions")
RESCALED = "{}, rescaled"
ROUNDING = 1e-5
"""Powers of two change no bit; other programs round a mean otherwise."""


def rescaling(part: dict[str, Any], coordinates: str) -> float:
    """Return the largest factor by which rescaled filters change a mean.

    It is 1 for measures that do not depend on the scale of filters. Cosines,
    which may be near 0, do not count.
    """
    views = part["views"]
    pairs = [views[x.format(coordinates)] for x in ("{}", RESCALED)]
    before, after = (
        np.array([view[x]["means"] for x in SHOWN], float) for view in pairs
    )
    return float(np.exp(np.max(np.abs(np.log(after / before)))))


def faults(content: Content) -> list[str]:
    """Return the runs whose directions depend on the scale of filters."""
    return [
        f"{name}: measures of directions depend on the scale of filters."
        for name, part in content["parts"].items()
        if "directions, rescaled" in part["views"]
        and not rescaling(part, "directions") <= 1 + ROUNDING
    ]


def _runs(content: Content) -> Iterator[tuple[str, float, Any]]:
    """Yield network, rate and part."""
    for network in NETWORKS:
        for rate in content["settings"]["rates"]:
            yield network, rate, content["parts"][f"{network}, rate {rate:g}"]


def report(content: Content) -> str:
    """Return a table of measures and one of the covariate shift."""
    texts = (
        pages.settings(content),
        "**Along the gradient.** Means over the points of a training, ±"
        " standard deviation over seeds; *factor*: the largest by which"
        " rescaled filters change a mean, cosines excepted.",
        _measures(content),
        "**Internal covariate shift.** Means over kernels but the first, over"
        " points and seeds.",
        _shifts(content),
    )
    return "\n\n".join(texts)


def _measures(content):
    head = ("", "rate", "coordinates", "last loss", *MEASURES.values())
    rows = [(*head, "factor")]
    for network, rate, part in _runs(content):
        for view in COORDINATES:
            measured = part["views"][view]
            cells = [_means(measured[name]["means"]) for name in MEASURES]
            known = RESCALED.format(view) in part["views"]
            factor = f"{rescaling(part, view):.6g}" if known else ""
            loss = pages.spread(part["loss"], 4)
            rows.append((network, f"{rate:g}", view, loss, *cells, factor))
    return pages.table(rows, right=True)


def _means(values):
    """Return mean and deviation to three digits of the mean."""
    values = np.array(values, float)
    size = np.abs(values).mean()
    if not np.isfinite(size) or not size:
        return pages.spread(values, 0)
    return pages.spread(values, max(0, 2 - int(np.floor(np.log10(size)))))


def _shifts(content):
    names = [f"{x}, {y}" for x in ("cosine", "change") for y in COORDINATES]
    rows = [("", "rate", *names)]
    for network, rate, part in _runs(content):
        cells = [
            pages.spread([_floats(part["shifts"][view][name][1:]).mean()], 3)
            for name in ("cosine", "change")
            for view in COORDINATES
        ]
        rows.append((network, f"{rate:g}", *cells))
    return pages.table(rows, right=True)


def _floats(values):
    return np.array(values, float)


def figures(content: Content) -> dict[str, Figure]:
    """Draw measures at the largest rate, a row for each of the coordinates."""
    rate = max(content["settings"]["rates"])
    drawn, axes = panels((len(COORDINATES), 3), 2.4, sharex="col")
    for view, row in zip(COORDINATES, axes, strict=True):
        for network, look in zip(NETWORKS, LOOKS, strict=False):
            part = content["parts"][f"{network}, rate {rate:g}"]
            _draw(row, part, view, {**look, "label": network})
            other = RESCALED.format(view)
            if other in part["views"]:
                label = f"{network}, filters rescaled"
                style = {**LOOKS[6], "linestyle": ":", "label": label}
                _draw(row[:-1], part, other, style)
        for panel, name in zip(row, DRAWN, strict=False):
            panel.set(yscale="log", title=f"{MEASURES[name]},\n{view}")
            few_ticks(panel.yaxis)
        row[-1].set(title=f"cosine of the covariate\nshift, {view}")
    for panel, label in zip(axes[-1], ("step", "step", "layer"), strict=True):
        panel.set_xlabel(label)
    legend_below(drawn, 3)
    return {"smoothness": drawn}


def _draw(row, part, view, style):
    for panel, name in zip(row, DRAWN, strict=False):
        curve = _floats(part["views"][view][name]["curve"])
        panel.plot(part["step"], curve, **style, **SPARSE)
    if len(row) > len(DRAWN):
        row[-1].plot(_floats(part["shifts"][view]["cosine"]), **style)
