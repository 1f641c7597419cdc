"""What came out of weight decay: tables and a figure."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import pages
from benchmarks.experiments.equilibrium_windows import arrival, edges, middles
from benchmarks.report import COLOURS

__all__ = ["figure", "table"]

NAMES = {"sgd": "SGD", "adamw": "AdamW"}


def table(content: dict[str, Any]) -> str:
    """Two tables in Markdown: the equilibria, and the matched runs.

    Args:
        content: that of the results.

    Returns:
        What goes onto the page.
    """
    settings = content["settings"]
    widths = " and ".join(map(str, settings["widths"]))
    about = (
        f"{settings['examples']} images of {settings['dataset']} in batches of"
        f" {settings['batch_size']}; hidden layers of {widths} units;"
        f" {settings['steps']} steps at a constant rate; {settings['seeds']}"
        " seeds. Rotations in radians a step, norms and rotations RMS over"
        " filters, seeds and the second half of the steps. *Measured* is of"
        " *predicted* what the quotient says, layer by layer; *traced* is"
        " predicted from the gradient's norm at every step. *Arrived* is the"
        " step at which the norms of the first layer first are within 10 % of"
        " their end: predicted, measured. *Dead* filters of all"
        f" {settings['seeds']} seeds, which no gradient reaches in the end, are"
        " left out."
    )
    return "\n\n".join(
        [about, _points(content), _matched(content), _pilots(content)]
    )


def _cases(content: dict[str, Any], optimizer: str):
    """Rate, decay and part of every point of an optimizer."""
    rates, decays = content["settings"][optimizer]
    for rate in rates:
        for decay in decays:
            name = f"{optimizer}, rate {rate:g}, decay {decay:g}"
            yield rate, decay, content["parts"][name]


def _points(content: dict[str, Any]) -> str:
    rows = [
        [
            *("", "rate", "decay", "rate x decay", "rotation, predicted"),
            *("measured / predicted", "single filters", "norm, predicted"),
            *("measured / predicted", "measured / traced", "arrived", "dead"),
        ]
    ]
    steps = content["settings"]["steps"]
    for optimizer, label in NAMES.items():
        for rate, decay, part in _cases(content, optimizer):
            layers = list(part["layers"].values())
            low, high = np.array(layers[0]["filters"]) / part["rotation"]
            rows.append(
                [
                    label,
                    f"{rate:g}",
                    f"{decay:g}",
                    f"{rate * decay:.1e}",
                    f"{part['rotation']:.4f}",
                    _each(x["rotation"] / part["rotation"] for x in layers),
                    f"{low:.2f} to {high:.2f}",
                    _each(x["predicted norm"] for x in layers),
                    _each(x["norm"] / x["predicted norm"] for x in layers),
                    _each(_of_traced(x, steps) for x in layers)
                    if optimizer == "sgd"
                    else "",
                    ", ".join(_arrivals(layers[0], steps)),
                    ", ".join(str(x["dead"]) for x in layers),
                ]
            )
    return pages.table(rows, right=True)


def _each(values: Any) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def _of_traced(layer: dict[str, Any], steps: int) -> float:
    """The norm measured, of that from the gradient's norm at every step."""
    curves, late = layer["curves"]["norm"], (steps // 2, steps)
    measured, traced = (
        _rms(curves[name], steps, late) for name in ("measured", "traced")
    )
    return measured / traced


def _arrivals(layer: dict[str, Any], steps: int) -> list[str]:
    """When norms are near their end, as predicted and as measured."""
    curves = layer["curves"]["norm"]
    found = (
        arrival(curves["forecast"], layer["predicted norm"], steps),
        arrival(curves["measured"], layer["norm"], steps),
    )
    return ["never" if step is None else f"{step:.0f}" for step in found]


STRETCHES = ((0, 10), (10, 100), (100, 1000), (1000, None))
"""Of which steps the second table has a column."""


def _matched(content: dict[str, Any]) -> str:
    steps = content["settings"]["steps"]
    shown = [
        (first, min(last or steps, steps))
        for first, last in STRETCHES
        if first < steps
    ]
    heads = [f"steps {first} to {last}" for first, last in shown]
    rows = [
        [
            "",
            *(f"rotation, {head}" for head in heads),
            *(f"loss, {head}" for head in heads),
        ]
    ]
    for optimizer, label in NAMES.items():
        part = content["parts"][f"matched {optimizer}"]
        rows.append(
            [
                f"{label}: in equilibrium",
                *[f"{part['rotation']:.4f}"] * len(heads),
            ]
            + [""] * len(heads)
        )
        for name, run in part["runs"].items():
            rows.append(
                [
                    f"{label}: {name}",
                    *(f"{_rms(run['rotation'], steps, x):.4f}" for x in shown),
                    *(f"{_mean(run['loss'], steps, x):.3f}" for x in shown),
                ]
            )
    return pages.table(rows, right=True)


def _over(values: list[float], steps: int, part: tuple[int, int]):
    """The stretches that lie in a part of the steps, and their lengths."""
    found = edges(steps)
    inside = (found[:-1] >= part[0]) & (found[1:] <= part[1])
    return np.array(values)[inside], np.diff(found)[inside]


def _rms(*arguments: Any) -> float:
    values, weights = _over(*arguments)
    return float(np.sqrt(np.average(values**2, weights=weights)))


def _mean(*arguments: Any) -> float:
    values, weights = _over(*arguments)
    return float(np.average(values, weights=weights))


def _pilots(content: dict[str, Any]) -> str:
    rows = [["pilot", "`gradient_norm`", "rotation / wanted", "corrected to"]]
    part = content["parts"]["matched sgd"]
    for index, pilot in enumerate(part["pilots"]):
        rows.append(
            [
                str(index + 1),
                f"{pilot['gradient']:.4f}",
                f"{pilot['rotation'] / part['rotation']:.3f}",
                f"{pilot['corrected']:.4f}",
            ]
        )
    return pages.table(rows, right=True)


def figure(content: dict[str, Any]) -> Figure:
    """Draw norms and rotations on their way, and the matched rotations.

    Args:
        content: that of the results.

    Returns:
        A figure with a row for each optimizer; decays at the rate in the
        middle, in the first layer.
    """
    drawn = Figure(figsize=(11, 6.6), layout="constrained")
    panels = drawn.subplots(2, 3)
    for row, (optimizer, label) in zip(panels, NAMES.items(), strict=True):
        rates = content["settings"][optimizer][0]
        rate = rates[len(rates) // 2]
        for axes, what in zip(row[:2], ("norm", "rotation"), strict=True):
            _draw_curves(axes, content, optimizer, rate, what)
            axes.set_title(f"{label}, rate {rate:g}", fontsize="medium")
        _draw_matched(row[2], content, optimizer)
        row[2].set_title(f"{label}, matched", fontsize="medium")
    for axes in panels.flat:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small")
    return drawn


def _draw_curves(
    axes: Axes,
    content: dict[str, Any],
    optimizer: str,
    rate: float,
    what: str,
) -> None:
    step = middles(content["settings"]["steps"])
    cases = [x for x in _cases(content, optimizer) if x[0] == rate]
    for colour, (_, decay, part) in zip(COLOURS[-3:], cases, strict=False):
        curves = part["layers"]["hidden_0"]["curves"][what]
        axes.plot(
            step, curves["measured"], color=colour, label=f"decay {decay:g}"
        )
        axes.plot(step, curves["forecast"], color=colour, linestyle="--")
        if optimizer == "sgd":
            axes.plot(step, curves["traced"], color=colour, linestyle=":")
    axes.set_ylabel("norm" if what == "norm" else "rotation (radians a step)")


def _draw_matched(axes: Axes, content: dict[str, Any], optimizer: str) -> None:
    step = middles(content["settings"]["steps"])
    part = content["parts"][f"matched {optimizer}"]
    for colour, (name, run) in zip(
        COLOURS[-3:], part["runs"].items(), strict=False
    ):
        axes.plot(step, run["rotation"], color=colour, label=name)
    axes.axhline(part["rotation"], color="grey", linewidth=0.8)
    axes.set_ylabel("rotation (radians a step)")
