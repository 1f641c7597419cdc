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
from benchmarks.harness.colours import DARK_GREY, look, ordered
from benchmarks.harness.figures import (
    few_ticks,
    keys,
    label_end,
    legend_below,
    panels,
)
from benchmarks.harness.results import Content

NAMES = {"sgd": "SGD", "adamw": "AdamW"}
STRETCHES = ((0, 10), (10, 100), (100, 1000), (1000, None))
"""First and last steps, each pair a column of the second table."""

STYLES = {"measured": "-", "forecast": "--", "traced": ":"}
"""Lines of the measured curves, and of both predictions."""


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


def figures(content: Content) -> dict[str, Figure]:
    """Draw norms, rotations and matched rotations, a row for each optimizer.

    Decays are at the rate in the middle, curves those of the first layer.
    """
    drawn, axes = panels((2, 3), 2.7)
    for row, (optimizer, label) in zip(axes, NAMES.items(), strict=True):
        rates = content["settings"][f"{optimizer}_rates"]
        rate = rates[len(rates) // 2]
        for panel, kind in zip(row, ("norm", "rotation"), strict=False):
            _draw_curves(panel, content, optimizer, rate, kind)
            panel.set_title(f"{label}, rate {rate:g}")
        row[0].set_title(f"{label}, rate {rate:g}, decays")
        _draw_matched(row[2], content, optimizer)
        row[2].set_title(f"{label}, matched")
        row[2].legend()
    for index, panel in enumerate(axes.flat):
        kind = "rotation (radians / step)" if index % 3 else "norm"
        panel.set(xscale="log", yscale="log", xlabel="step", ylabel=kind)
        few_ticks(panel.yaxis)
    labels = "measured", "predicted", "predicted from the gradient's norm"
    legend_below(drawn, 3, keys(labels, [*STYLES.values()]))
    return {"equilibrium": drawn}


def _draw_curves(axes, content, optimizer, rate, kind):
    step = middles(content["settings"]["steps"])
    cases = [x for x in _cases(content, optimizer) if x[0] == rate]
    for style, (_, decay, part) in zip(ordered(3), cases, strict=False):
        curves = part["layers"]["hidden_0"]["curves"][kind]
        for name, line in STYLES.items():
            if name == "traced" and optimizer != "sgd":
                continue
            options = {"color": style["color"], "linewidth": 1.3}
            if name == "measured":
                options = {**style, "markevery": 0.3, "linewidth": 2}
            axes.plot(step, curves[name], line, **options)
        if kind == "norm":
            end = curves["measured"][-1]
            label_end(axes, end, f"{decay:g}", style["color"], fontsize=9)


def _draw_matched(axes, content, optimizer):
    step = middles(content["settings"]["steps"])
    part = content["parts"][f"matched {optimizer}"]
    baseline = {"sgd": "sgd_decay"}.get(optimizer, optimizer)
    for name, run in part["runs"].items():
        style = look({"decayed": baseline}.get(name, name))
        options = {"label": name, "markevery": 0.2}
        axes.plot(step, run["rotation"], **style, **options)
    axes.axhline(part["rotation"], color=DARK_GREY, linewidth=1)
