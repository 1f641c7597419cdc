"""A table of test accuracies by method and scale, and its figure."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.experiments.tuning import tuned_to
from benchmarks.harness import pages
from benchmarks.harness.colours import COLOURS, MARKERS
from benchmarks.harness.figures import styled
from benchmarks.harness.results import Content


def report(content: Content) -> str:
    """Return the table, in 80 columns, and a sentence that reads it."""
    settings, parts = content["settings"], content["parts"]
    rows, tuned = [["", *(f"x {x:g}" for x in settings["scales"])]], []
    for part in parts.values():
        label = part["label"].replace("weight decay", "decay")
        cells = [pages.spread(x, 1, "±") for x in _percent(part)]
        rows.append([label, *cells])
        tuned.append(f"{label}: {tuned_to(part, ('lr ', 'decay '))}")
    above = (
        f"Test accuracy (%) on {settings['dataset']} of a BatchNorm MLP whose"
        " initial filters are multiplied by a number: mean ± standard"
        f" deviation of {settings['seeds']} seeds, {settings['epochs']} epochs,"
        " cosine decay."
    )
    trials = sorted({len(part["trials"]) for part in parts.values()})
    below = (
        "All methods start from the same weights. Each was tuned without a"
        f" factor, on validation data, in {' or '.join(map(str, trials))}"
        f" trials; a star marks the edge of its grid. {'; '.join(tuned)}."
    )
    above, shown, below = map(pages.wrap, (above, _shown(parts), below))
    return "\n\n".join([above, pages.table(rows), shown, below])


def _percent(part: dict[str, Any]) -> np.ndarray:
    """Return accuracies by scale and seed."""
    return 100 * np.array(list(part["accuracy"].values()))


def _shown(parts: dict[str, Any]) -> str:
    """Return by how much SGD and our methods depend on the scale."""
    found = [
        f"{part['label']} by {np.ptp(_percent(part).mean(1)):.1f}"
        for name, part in parts.items()
        if name == "sgd" or name.startswith("psi")
    ]
    *others, last = found or ["none was trained"]
    listed = f"{', '.join(others)} and {last}" if others else last
    return f"Over these scales the mean accuracies vary, in points: {listed}."


@styled
def figures(content: Content) -> dict[str, Figure]:
    """Draw test accuracy against the scale, with bands of one deviation."""
    settings, drawn = content["settings"], Figure(figsize=(7.5, 4.5))
    axes, scales = drawn.subplots(), settings["scales"]
    for index, (name, part) in enumerate(content["parts"].items()):
        colour, percent = COLOURS[index % len(COLOURS)], _percent(part)
        mean, spread = percent.mean(1), np.zeros(len(scales))
        if percent.shape[1] > 1:
            spread = percent.std(1, ddof=1)
        axes.plot(
            scales,
            mean,
            color=colour,
            label=part["label"],
            linestyle="-" if name.startswith("psi") else "--",
            marker=MARKERS[index % len(MARKERS)],
        )
        bounds = mean - spread, mean + spread
        axes.fill_between(
            scales, *bounds, color=colour, alpha=0.12, linewidth=0
        )
    axes.set(
        xscale="log",
        xlabel="scale of the initial filters",
        ylabel=f"test accuracy on {settings['dataset']} (%)",
    )
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return {"rescaling": drawn}
