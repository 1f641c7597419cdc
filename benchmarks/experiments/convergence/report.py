"""Tables and figure of full-batch descent, and its claims."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.harness import pages
from benchmarks.harness.colours import DARK_GREY, look, ordered
from benchmarks.harness.figures import SPARSE, key, legend_below, panels
from benchmarks.harness.results import Content

METHODS = {"PSI-GD": "direction", "GD": "euclidean"}
"""The methods, with the gradient that their theorem bounds."""

FIRST = 0.7  # in place of step 0 on a logarithmic axis

Run = dict[str, Any]


def bound(run: Run, step: Any) -> Any:
    r"""Return \(2 L (L_0 - L_*) / T\), a bound of the least squared gradient.

    L is the largest of the constants that the rates are made of, and the least
    loss is 0, that of a cross-entropy.
    """
    return 2 / min(run["rates"]) * run["loss"][0] / step


def at_theorem(content: Content) -> Iterator[tuple[str, str, Run]]:
    """Yield method, scale and run, for each run at a theorem's rates."""
    parts = content["parts"]
    yield "PSI-GD", "any", parts["PSI-GD, theorem, scale 1"]
    for scale in content["settings"]["scales"]:
        yield "GD", f"{scale:g}", parts[f"GD, theorem, scale {scale:g}"]


def faults(content: Content) -> list[str]:
    """Return the runs at a theorem's rates that its claims do not hold for."""
    return [
        f"{name} from scale {scale} does not descend as its theorem promises."
        for name, scale, run in at_theorem(content)
        if not _holds(name, run)
    ]


def _holds(name, run):
    """Tell whether constants, promise and bound of a theorem hold."""
    step, least = np.array(run["step"][1:]), run[METHODS[name]][:-1]
    return (
        run["excess"] <= 1
        and run["broken"] == run["rises"] == 0
        and _curvature(run) <= 1
        and bool(np.all(least <= bound(run, step)))
    )


def report(content: Content) -> str:
    """Return three tables: the theorems, multiples, and scales."""
    texts = (
        pages.settings(content),
        *("**At the theorems' rates.**", _theorems(content)),
        *("**At multiples of them.** From scale 1.", _multiples(content)),
        "**From other scales,** at the theorems' rates at scale 1: the loss in"
        " the end.",
        _scales(content),
    )
    return "\n\n".join(texts)


def _theorems(content):
    head = (
        *("", "scale", "largest constant", "excess", "curvature times rate"),
        *("steps below the promise", "least gradient²", "bound"),
        *("bound / least", "in direction space", "loss"),
    )
    rows = [head]
    for name, scale, run in at_theorem(content):
        # Those of the last step, and of the steps before it.
        last, least = bound(run, run["step"][-1]), run[METHODS[name]][-2]
        cells = (
            *(f"{1 / min(run['rates']):.3g}", f"{run['excess']:.3f}"),
            *(f"{_curvature(run):.2f}", str(run["broken"]), f"{least:.2g}"),
            *(f"{last:.2g}", f"{last / least:.3g}"),
            *(f"{run['direction'][-2]:.2g}", f"{run['loss'][-1]:.4f}"),
        )
        rows.append((name, scale, *cells))
    return pages.table(rows, right=True)


def _curvature(run):
    """Return the largest curvature times rate on the path."""
    return max(map(abs, run["curvature"]))


def _multiples(content):
    multiples = content["settings"]["multiples"]
    quantities = {
        "loss": lambda run: f"{run['loss'][-1]:.4f}",
        "steps up": lambda run: str(run["rises"]),
        "curvature times rate": lambda run: f"{_curvature(run):.2g}",
        "- at the end": lambda run: f"{abs(run['curvature'][-1]):.2g}",
    }
    rows = [["", *(f"x {multiple:g}" for multiple in multiples)]]
    for name in METHODS:
        runs = [content["parts"][f"{name}, multiple {m:g}"] for m in multiples]
        for what, show in quantities.items():
            rows.append([f"{name}: {what}", *map(show, runs)])
    return pages.table(rows, right=True)


def _scales(content):
    scales, parts = content["settings"]["scales"], content["parts"]
    rows = [["", *(f"scale {scale:g}" for scale in scales)]]
    for name in METHODS:
        runs = [parts[f"{name}, rate kept, scale {x:g}"] for x in scales]
        rows.append([name, *(f"{run['loss'][-1]:.6f}" for run in runs)])
    return pages.table(rows, right=True)


def figures(content: Content) -> dict[str, Figure]:
    """Draw six panels; a factor has one colour in all of them."""
    drawn, axes = panels((2, 3), 2.6)
    _draw_bounds(axes[0, 0], content)
    _draw_curvature(axes[1, 0], content)
    for name, above, below in zip(METHODS, *axes[:, 1:], strict=True):
        _draw_losses(above, content, f"{name}, multiple", "multiples")
        above.set_title(f"{name}, rates x factor")
        _draw_losses(below, content, f"{name}, rate kept, scale", "scales")
        below.set_title(f"{name}, weights x factor")
    for panel in axes.flat:
        panel.set(xscale="log", yscale="log", xlabel="step")
    for left, right in axes[:, 1:]:
        right.sharey(left)
        left.autoscale(axis="y")
    shown = [key(f"x {x:g}", **style) for x, style in _looks(content).items()]
    shown.append(key("PSI-GD, any scale", **look("PSI-GD")))
    shown.append(key("bound", linestyle="--"))
    legend_below(drawn, 4, shown)
    return {"convergence": drawn}


def _looks(content):
    """Return the looks of factors, of rates or of weights."""
    settings = content["settings"]
    factors = sorted({*settings["multiples"], *settings["scales"]})
    return dict(zip(factors, ordered(len(factors)), strict=True))


def _draw_bounds(axes, content):
    looks = _looks(content)
    for name, scale, run in at_theorem(content):
        style = look(name) if scale == "any" else looks[float(scale)]
        # The least of the first T points is that of an earlier one.
        step, least = np.array(run["step"][1:]), run[METHODS[name]][:-1]
        axes.plot(step, least, **style, **SPARSE)
        axes.plot(step, bound(run, step), "--", color=style["color"], lw=1.2)
    axes.set_ylabel("least squared gradient")
    axes.set_title("theorems 2 and 4")


def _draw_curvature(axes, content):
    """Draw every second multiple."""
    looks = _looks(content)
    for multiple in content["settings"]["multiples"][1::2]:
        for name, line in zip(METHODS, ("-", ":"), strict=True):
            run = content["parts"][f"{name}, multiple {multiple:g}"]
            style = {**looks[multiple], **SPARSE, "linestyle": line}
            steps = np.maximum(run["seen"], FIRST)
            axes.plot(steps, np.abs(run["curvature"]), **style)
    axes.axhline(2, color=DARK_GREY, linewidth=1)
    axes.set_ylabel("curvature x rate")
    axes.set_title("PSI-GD, and GD (dotted)")


def _draw_losses(axes, content, part, varied):
    of_scales, looks = varied == "scales", _looks(content)
    for index, value in enumerate(content["settings"][varied]):
        run = content["parts"][f"{part} {value:g}"]
        axes.plot(
            np.maximum(run["step"], FIRST),
            run["loss"],
            # Gaps of different lengths show lines that lie on each other.
            linestyle=(0, (3, 1 + index)) if of_scales else "-",
            **looks[value],
            **SPARSE,
        )
    axes.set_ylabel("loss")
