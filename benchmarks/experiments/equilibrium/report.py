"""Tables and figure of the experiment on equilibria."""

import numpy as np
from matplotlib.figure import Figure

from benchmarks.experiments.equilibrium.windows import (
    arrival,
    mean,
    middles,
    overall,
)
from benchmarks.harness import pages
from benchmarks.harness.colours import COLOURS
from benchmarks.harness.figures import styled
from benchmarks.harness.results import Content

NAMES = {"sgd": "SGD", "adamw": "AdamW"}
STRETCHES = ((0, 10), (10, 100), (100, 1000), (1000, None))
"""First and last steps, each pair a column of the second table."""


def report(content: Content) -> str:
    """Return tables of the equilibria, the matched runs and their pilots."""
    tables = _equilibria(content), _matched(content), _pilots(content)
    return "\n\n".join([pages.settings(content), *tables])


def _cases(content, optimizer):
    """Yield rate, decay and part of every point of an optimizer."""
    settings = content["settings"]
    for rate in settings[f"{optimizer}_rates"]:
        for decay in settings[f"{optimizer}_decays"]:
            name = f"{optimizer}, rate {rate:g}, decay {decay:g}"
            yield rate, decay, content["parts"][name]


def _equilibria(content):
    steps = content["settings"]["steps"]
    head = (
        *("", "rate", "decay", "rate x decay", "rotation, predicted"),
        *("measured / predicted", "single filters", "norm, predicted"),
        *("measured / predicted", "measured / traced", "arrived", "dead"),
    )
    rows = [
        [label, *_cells(*case, steps=steps, traced=name == "sgd")]
        for name, label in NAMES.items()
        for case in _cases(content, name)
    ]
    return pages.table([head, *rows], right=True)


def _cells(rate, decay, part, steps, traced):
    """Return a point's row of the first table, behind the optimizer."""
    layers, rotation = list(part["layers"].values()), part["rotation"]
    low, high = np.array(layers[0]["filters"]) / rotation
    return [
        *(f"{rate:g}", f"{decay:g}", f"{rate * decay:.1e}", f"{rotation:.4f}"),
        _each(x["rotation"] / rotation for x in layers),
        f"{low:.2f} to {high:.2f}",
        _each(x["predicted norm"] for x in layers),
        _each(x["norm"] / x["predicted norm"] for x in layers),
        _each(_of_traced(x, steps) for x in layers) if traced else "",
        _arrivals(layers[0], steps),
        ", ".join(str(x["dead"]) for x in layers),
    ]


def _each(values):
    return ", ".join(f"{value:.3f}" for value in values)


def _of_traced(layer, steps):
    """Return the norm, relative to that traced from all gradients."""
    curves, late = layer["curves"]["norm"], (steps, steps // 2, steps)
    return overall(curves["measured"], *late) / overall(curves["traced"], *late)


def _arrivals(layer, steps):
    """Return when norms are near their end, as predicted and as measured."""
    curves = layer["curves"]["norm"]
    found = (
        arrival(curves["forecast"], layer["predicted norm"], steps),
        arrival(curves["measured"], layer["norm"], steps),
    )
    return ", ".join("never" if x is None else f"{x:.0f}" for x in found)


def _matched(content):
    steps = content["settings"]["steps"]
    shown = [(a, min(b or steps, steps)) for a, b in STRETCHES if a < steps]
    kinds = ("rotation", "loss")
    rows = [["", *(f"{x}, steps {a} to {b}" for x in kinds for a, b in shown)]]
    for optimizer, label in NAMES.items():
        part = content["parts"][f"matched {optimizer}"]
        settled = [f"{part['rotation']:.4f}"] * len(shown)
        rows.append([f"{label}: in equilibrium", *settled, *[""] * len(shown)])
        for name, run in part["runs"].items():
            row = [f"{label}: {name}"]
            row += [f"{overall(run['rotation'], steps, *x):.4f}" for x in shown]
            row += [f"{mean(run['loss'], steps, *x):.3f}" for x in shown]
            rows.append(row)
    return pages.table(rows, right=True)


def _pilots(content):
    part = content["parts"]["matched sgd"]
    rows = [["pilot", "`gradient_norm`", "rotation / wanted", "corrected to"]]
    for number, pilot in enumerate(part["pilots"], 1):
        gradient, corrected = pilot["gradient_norm"], pilot["corrected"]
        turned = f"{pilot['rotation'] / part['rotation']:.3f}"
        rows.append(
            [str(number), f"{gradient:.4f}", turned, f"{corrected:.4f}"]
        )
    return pages.table(rows, right=True)


@styled
def figures(content: Content) -> dict[str, Figure]:
    """Draw norms, rotations and matched rotations, a row for each optimizer.

    Decays are at the rate in the middle, curves those of the first layer.
    """
    drawn = Figure(figsize=(11, 6.6))
    panels = drawn.subplots(2, 3)
    for row, (optimizer, label) in zip(panels, NAMES.items(), strict=True):
        rates = content["settings"][f"{optimizer}_rates"]
        rate = rates[len(rates) // 2]
        for axes, kind in zip(row, ("norm", "rotation"), strict=False):
            _draw_curves(axes, content, optimizer, rate, kind)
            axes.set_title(f"{label}, rate {rate:g}")
        _draw_matched(row[2], content, optimizer)
        row[2].set_title(f"{label}, matched")
    for index, axes in enumerate(panels.flat):
        kind = "rotation (radians a step)" if index % 3 else "norm"
        axes.set(xscale="log", yscale="log", xlabel="step", ylabel=kind)
        axes.legend(fontsize="x-small")
    return {"equilibrium": drawn}


def _draw_curves(axes, content, optimizer, rate, kind):
    step = middles(content["settings"]["steps"])
    styles = {"measured": "-", "forecast": "--", "traced": ":"}
    if optimizer != "sgd":
        del styles["traced"]
    cases = [x for x in _cases(content, optimizer) if x[0] == rate]
    for colour, (_, decay, part) in zip(COLOURS[-3:], cases, strict=False):
        curves = part["layers"]["hidden_0"]["curves"][kind]
        for name, style in styles.items():
            label = f"decay {decay:g}" if name == "measured" else None
            axes.plot(step, curves[name], style, color=colour, label=label)


def _draw_matched(axes, content, optimizer):
    step = middles(content["settings"]["steps"])
    part = content["parts"][f"matched {optimizer}"]
    runs = zip(COLOURS[-3:], part["runs"].items(), strict=False)
    for colour, (name, run) in runs:
        axes.plot(step, run["rotation"], color=colour, label=name)
    axes.axhline(part["rotation"], color="grey", linewidth=0.8)
