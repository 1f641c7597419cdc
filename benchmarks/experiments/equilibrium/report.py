"""Tables and figure of the experiment on equilibria."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.experiments.equilibrium.windows import (
    arrival,
    mean,
    middles,
    overall,
)
from benchmarks.harness import pages
from benchmarks.harness.colours import COLOURS
from benchmarks.harness.results import Content

NAMES = {"sgd": "SGD", "adamw": "AdamW"}
STRETCHES = ((0, 10), (10, 100), (100, 1000), (1000, None))
"""First and last steps, each pair a column of the second table."""


def report(content: Content) -> str:
    """Return tables of the equilibria, the matched runs and their pilots."""
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
    tables = [_equilibria(content), _matched(content), _pilots(content)]
    return "\n\n".join([about, *tables])


def _cases(content: Content, optimizer: str) -> Iterator[tuple]:
    """Yield rate, decay and part of every point of an optimizer."""
    settings = content["settings"]
    for rate in settings[f"{optimizer}_rates"]:
        for decay in settings[f"{optimizer}_decays"]:
            name = f"{optimizer}, rate {rate:g}, decay {decay:g}"
            yield rate, decay, content["parts"][name]


def _equilibria(content: Content) -> str:
    steps = content["settings"]["steps"]
    rows = [
        [("", NAMES[name]), *_cells(*case, steps=steps, traced=name == "sgd")]
        for name in NAMES
        for case in _cases(content, name)
    ]
    head = [column for column, _ in rows[0]]
    body = [[cell for _, cell in row] for row in rows]
    return pages.table([head, *body], right=True)


def _cells(
    rate: float, decay: float, part: dict[str, Any], steps: int, traced: bool
) -> list[tuple[str, str]]:
    """Return a point's columns: the head and the cell of each."""
    layers, rotation = list(part["layers"].values()), part["rotation"]
    low, high = np.array(layers[0]["filters"]) / rotation
    measured = "measured / predicted"
    return [
        ("rate", f"{rate:g}"),
        ("decay", f"{decay:g}"),
        ("rate x decay", f"{rate * decay:.1e}"),
        ("rotation, predicted", f"{rotation:.4f}"),
        (measured, _each(x["rotation"] / rotation for x in layers)),
        ("single filters", f"{low:.2f} to {high:.2f}"),
        ("norm, predicted", _each(x["predicted norm"] for x in layers)),
        (measured, _each(x["norm"] / x["predicted norm"] for x in layers)),
        (
            "measured / traced",
            _each(_of_traced(x, steps) for x in layers) if traced else "",
        ),
        ("arrived", ", ".join(_arrivals(layers[0], steps))),
        ("dead", ", ".join(str(x["dead"]) for x in layers)),
    ]


def _each(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def _of_traced(layer: dict[str, Any], steps: int) -> float:
    """Return the norm, relative to that traced from all gradients."""
    curves, late = layer["curves"]["norm"], (steps // 2, steps)
    measured, traced = (
        overall(curves[name], steps, late) for name in ("measured", "traced")
    )
    return measured / traced


def _arrivals(layer: dict[str, Any], steps: int) -> list[str]:
    """Return when norms are near their end, as predicted and as measured."""
    curves = layer["curves"]["norm"]
    found = (
        arrival(curves["forecast"], layer["predicted norm"], steps),
        arrival(curves["measured"], layer["norm"], steps),
    )
    return ["never" if step is None else f"{step:.0f}" for step in found]


def _matched(content: Content) -> str:
    steps = content["settings"]["steps"]
    shown = [(a, min(b or steps, steps)) for a, b in STRETCHES if a < steps]
    head = [
        f"{kind}, steps {a} to {b}"
        for kind in ("rotation", "loss")
        for a, b in shown
    ]
    rows = [["", *head]]
    for optimizer, label in NAMES.items():
        part = content["parts"][f"matched {optimizer}"]
        settled = [f"{part['rotation']:.4f}"] * len(shown)
        rows.append([f"{label}: in equilibrium", *settled, *[""] * len(shown)])
        for name, run in part["runs"].items():
            rotations = [overall(run["rotation"], steps, x) for x in shown]
            losses = [mean(run["loss"], steps, x) for x in shown]
            cells = (
                *(f"{x:.4f}" for x in rotations),
                *(f"{x:.3f}" for x in losses),
            )
            rows.append([f"{label}: {name}", *cells])
    return pages.table(rows, right=True)


def _pilots(content: Content) -> str:
    part = content["parts"]["matched sgd"]
    rows = [["pilot", "`gradient_norm`", "rotation / wanted", "corrected to"]]
    rows += [
        [
            str(number),
            f"{pilot['gradient']:.4f}",
            f"{pilot['rotation'] / part['rotation']:.3f}",
            f"{pilot['corrected']:.4f}",
        ]
        for number, pilot in enumerate(part["pilots"], 1)
    ]
    return pages.table(rows, right=True)


def figures(content: Content) -> dict[str, Figure]:
    """Draw norms, rotations and matched rotations, a row for each optimizer.

    Decays are at the rate in the middle, curves those of the first layer.
    """
    drawn = Figure(figsize=(11, 6.6), layout="constrained")
    panels = drawn.subplots(2, 3)
    for row, (optimizer, label) in zip(panels, NAMES.items(), strict=True):
        rates = content["settings"][f"{optimizer}_rates"]
        rate = rates[len(rates) // 2]
        for axes, kind in zip(row, ("norm", "rotation"), strict=False):
            _draw_curves(axes, content, optimizer, rate, kind)
            axes.set_title(f"{label}, rate {rate:g}", fontsize="medium")
        _draw_matched(row[2], content, optimizer)
        row[2].set_title(f"{label}, matched", fontsize="medium")
    for index, axes in enumerate(panels.flat):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.set_ylabel("rotation (radians a step)" if index % 3 else "norm")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small")
    return {"equilibrium": drawn}


def _draw_curves(
    axes: Axes, content: Content, optimizer: str, rate: float, kind: str
) -> None:
    step = middles(content["settings"]["steps"])
    styles = {"measured": "-", "forecast": "--", "traced": ":"}
    if optimizer != "sgd":
        del styles["traced"]
    cases = [x for x in _cases(content, optimizer) if x[0] == rate]
    for colour, (_, decay, part) in zip(COLOURS[-3:], cases, strict=False):
        for name, style in styles.items():
            curve = part["layers"]["hidden_0"]["curves"][kind][name]
            [line] = axes.plot(step, curve, color=colour, linestyle=style)
            if name == "measured":
                line.set_label(f"decay {decay:g}")


def _draw_matched(axes: Axes, content: Content, optimizer: str) -> None:
    step = middles(content["settings"]["steps"])
    part = content["parts"][f"matched {optimizer}"]
    for colour, (name, run) in zip(
        COLOURS[-3:], part["runs"].items(), strict=False
    ):
        axes.plot(step, run["rotation"], color=colour, label=name)
    axes.axhline(part["rotation"], color="grey", linewidth=0.8)
