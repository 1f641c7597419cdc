"""A table of test accuracies by method and scale, and its figure."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.harness import pages
from benchmarks.harness.colours import COLOURS, MARKERS
from benchmarks.harness.results import Content


def report(content: Content) -> str:
    """Return the table, in 80 columns, and a sentence that reads it."""
    settings, parts = content["settings"], content["parts"]
    rows = [["", *(f"x {scale:g}" for scale in settings["scales"])]]
    rows += [
        [_label(part), *map(_cell, part["accuracy"].values())]
        for part in parts.values()
    ]
    tuned = "; ".join(f"{_label(p)}: {_chosen(p)}" for p in parts.values())
    above = (
        f"Test accuracy (%) on {settings['dataset']} of a BatchNorm MLP whose"
        f" initial filters are multiplied by a number: mean ± standard"
        f" deviation of {settings['seeds']} seeds, {settings['epochs']} epochs,"
        " cosine decay."
    )
    trials = sorted({len(part["trials"]) for part in parts.values()})
    below = (
        "All methods start from the same weights. Each was tuned without a"
        f" factor, on validation data, in {' or '.join(map(str, trials))}"
        f" trials; a star marks the edge of its grid. {tuned}."
    )
    above, shown, below = map(pages.wrap, (above, _shown(parts), below))
    return "\n\n".join([above, pages.table(rows), shown, below])


def figures(content: Content) -> dict[str, Figure]:
    """Draw test accuracy against the scale, with bands of one deviation."""
    settings = content["settings"]
    drawn = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = drawn.subplots()
    for index, (name, part) in enumerate(content["parts"].items()):
        colour = COLOURS[index % len(COLOURS)]
        mean, spread = _statistics(part)
        axes.plot(
            settings["scales"],
            mean,
            color=colour,
            label=part["label"],
            linestyle="-" if name.startswith("psi") else "--",
            marker=MARKERS[index % len(MARKERS)],
        )
        bounds = mean - spread, mean + spread
        axes.fill_between(
            settings["scales"], *bounds, color=colour, alpha=0.12, linewidth=0
        )
    axes.set_xscale("log")
    axes.set_xlabel("scale of the initial filters")
    axes.set_ylabel(f"test accuracy on {settings['dataset']} (%)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return {"rescaling": drawn}


def _statistics(part: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the standard deviation at each scale, in percent."""
    accuracies = 100 * np.array(list(part["accuracy"].values()))
    if accuracies.shape[1] == 1:
        return accuracies[:, 0], np.zeros(len(accuracies))
    return accuracies.mean(1), accuracies.std(1, ddof=1)


def _shown(parts: dict[str, Any]) -> str:
    """Return by how much SGD and our methods depend on the scale."""
    ranges = {
        part["label"]: float(np.ptp(_statistics(part)[0]))
        for name, part in parts.items()
        if name == "sgd" or name.startswith("psi")
    }
    found = [f"{name} by {points:.1f}" for name, points in ranges.items()]
    *others, last = found or ["none was trained"]
    listed = f"{', '.join(others)} and {last}" if others else last
    return f"Over these scales the mean accuracies vary, in points: {listed}."


def _label(part: dict[str, Any]) -> str:
    return part["label"].replace("weight decay", "decay")


def _cell(accuracies: list[float]) -> str:
    percent = 100 * np.array(accuracies)
    if len(percent) == 1:
        return f"{percent[0]:.1f}"
    return f"{percent.mean():.1f}±{percent.std(ddof=1):.1f}"


def _chosen(part: dict[str, Any]) -> str:
    """Return the chosen rate and decay, with a star at the edge of a grid."""
    found = []
    for name, short in (("learning_rate", "lr"), ("weight_decay", "decay")):
        if name == "learning_rate" or part["chosen"][name]:
            star = "*" if name in part["at_edge"] else ""
            found.append(f"{short} {part['chosen'][name]:g}{star}")
    return ", ".join(found)
