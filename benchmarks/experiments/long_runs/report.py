"""A table, a figure and claims of long runs."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from benchmarks.experiments import matched
from benchmarks.experiments.rotations import rms
from benchmarks.harness import pages
from benchmarks.harness.colours import in_order, look
from benchmarks.harness.figures import (
    few_ticks,
    key,
    keys,
    legend_below,
    panels,
)
from benchmarks.harness.results import Content
from benchmarks.optimizers import MOMENTUM
from psi_optax.dynamics import equilibrium_rotation

KEPT = "psi_sgd", "rotational"
"""The methods that keep norms."""


def report(content: Content) -> str:
    """Return the settings and a table with a row for each run."""
    settings = content["settings"]
    predicted = _predicted(settings)
    head = ["", "weights", "norm", "dead", "largest deviation"]
    rows = [
        [*head, "rotation, early", "late", "loss, early", "late", "accuracy"]
    ]
    for name, mode, found in _runs(content):
        early, late = _halves(found["rotation"])
        losses = _halves(found["loss"])
        rows.append(
            [
                matched.LABELS[name],
                mode,
                f"{_mean(found['norm'][-1]):.3g}",
                f"{_mean(found['dead'][-1]):g}",
                f"{np.max(found['deviation']):.1e}",
                *(f"{float(rms(x)) / predicted:.3f}" for x in (early, late)),
                *(f"{_mean(x):.3f}" for x in losses),
                f"{100 * _mean(_halves(found['accuracy'])[1]):.1f}",
            ]
        )
    told = f"Rotation at equilibrium: {predicted:.4f} radians a step."
    table = pages.table(rows, right=True)
    return "\n\n".join([pages.settings(content), told, table])


def _predicted(settings: dict[str, Any]) -> float:
    point = settings["rate"], settings["decay"]
    return float(equilibrium_rotation(*point, momentum=MOMENTUM))


def _runs(content: Content) -> Any:
    """Yield method, mode, and arrays by name, of shape (stretches, seeds)."""
    for name in matched.LABELS:
        for mode in content["settings"]["modes"]:
            part = content["parts"][f"{name}/{mode}"]
            yield name, mode, {k: np.array(v, float) for k, v in part.items()}


def _halves(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return values of the second tenth, and of the last half, of stretches."""
    count = len(values)
    tenth = max(count // 10, 1)
    return values[tenth : 2 * tenth], values[count // 2 :]


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values))


def faults(content: Content) -> list[str]:
    """Return the claims that do not hold: stored norms do not drift.

    A norm is within four spacings of its dtype of the stored one: half of one
    by the rounding of weights, and up to two by that of its own float32 sum.
    """
    found = []
    for name, mode, run in _runs(content):
        eps = float(jnp.finfo(mode.split(",")[0]).eps)
        if name in KEPT and not np.max(run["deviation"]) < 4 * eps:
            found.append(f"{matched.LABELS[name]}, {mode}: norms deviate.")
    return found


def figures(content: Content) -> dict[str, Figure]:
    """Draw norms, rotations and losses over steps."""
    settings = content["settings"]
    steps = settings["steps"] * np.arange(1, settings["stretches"] + 1) / 1000
    drawn, [axes] = panels((1, 3), 3.4)
    lines = dict(zip(settings["modes"], ("-", "--", ":", "-."), strict=False))
    names = in_order(matched.LABELS)
    for name, mode, found in _runs(content):
        # Markers of lines that lie on each other are beside each other.
        marks = {"markevery": (names.index(name), 5)}
        style = {**look(name), **marks, "linestyle": lines[mode]}
        for panel, kind in zip(axes, ("norm", "rotation", "loss"), strict=True):
            panel.plot(steps, found[kind].mean(1), **style)
    titles = "median norm / the first", "rotation (radians / step)"
    for panel, title in zip(axes, (*titles, "training loss"), strict=True):
        panel.set(title=title, xlabel="thousand steps")
    for panel in axes[:2]:
        panel.set_yscale("log")
        few_ticks(panel.yaxis)
    shown = [key(matched.LABELS[x].replace("`", ""), **look(x)) for x in names]
    shown += keys([*lines], [*lines.values()])
    legend_below(drawn, 2, shown)
    return {"long-runs": drawn}
