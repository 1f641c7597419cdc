"""Tables of full-batch descent, and its claims."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.harness import pages
from benchmarks.harness.results import Content

METHODS = {"PSI-GD": "direction", "GD": "euclidean"}
"""The methods, with the gradient that their theorem bounds."""

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


def _holds(name: str, run: Run) -> bool:
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
    settings = content["settings"]
    about = (
        f"{settings['width']} hidden units; {settings['steps']} steps on"
        f" {settings['dataset']}; smoothness at the start and"
        f" {settings['points']} later points of each path."
    )
    texts = (
        *(about, "**At the theorems' rates.**", _theorems(content)),
        *("**At multiples of them.** From scale 1.", _multiples(content)),
        "**From other scales,** at the theorems' rates at scale 1: the loss in"
        " the end.",
        _scales(content),
    )
    return "\n\n".join(texts)


def _theorems(content: Content) -> str:
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


def _curvature(run: Run) -> float:
    """Return the largest curvature times rate on the path."""
    return max(map(abs, run["curvature"]))


def _multiples(content: Content) -> str:
    multiples = content["settings"]["multiples"]
    quantities: dict[str, Callable[[Run], str]] = {
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


def _scales(content: Content) -> str:
    scales, parts = content["settings"]["scales"], content["parts"]
    rows = [["", *(f"scale {scale:g}" for scale in scales)]]
    for name in METHODS:
        runs = [parts[f"{name}, rate kept, scale {x:g}"] for x in scales]
        rows.append([name, *(f"{run['loss'][-1]:.6f}" for run in runs)])
    return pages.table(rows, right=True)
