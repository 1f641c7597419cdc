"""Table and figure of the experiment with unbalanced layers."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.experiments.tuning import tuned_to
from benchmarks.harness import pages
from benchmarks.harness.colours import look
from benchmarks.harness.figures import legend_below, panels
from benchmarks.harness.results import Content

CONDITIONS = ("balanced", "unbalanced", "usual epsilon")


def report(content: Content) -> str:
    """Return losses and accuracies by method and condition."""
    kinds, titles = ("loss", "accuracy"), _titles(content)
    rows = [["", *(f"{x}, {y}" for x in kinds for y in titles), "tuned to"]]
    for _, label, tuned, runs in _methods(content):
        row = [label]
        for kind, factor, digits in zip(kinds, (1, 100), (4, 1), strict=True):
            for run in runs.values():
                values = factor * np.array(run[kind], float) if run else []
                row.append(pages.spread(values, digits) if run else "")
        rows.append([*row, tuned_to(tuned, ("lr ", "wd "))])
    return f"{pages.settings(content)}\n\n{pages.table(rows, right=True)}"


def _titles(content):
    epsilon = content["settings"]["epsilons"][1]
    return "balanced", "unbalanced", f"unbalanced, epsilon {epsilon:g}"


def _methods(content):
    """Yield each row's name, label, tuning and runs by condition."""
    settings, parts = content["settings"], content["parts"]
    cases = [("tuned", name) for name in settings["methods"]]
    cases += [("retuned", name) for name in settings["retuned"]]
    for when, name in cases:
        tuned = parts[f"{when} {name}"]
        label = tuned["label"].replace(", tuned weight", ", weight")
        runs = {x: parts.get(f"{when} {name}, {x}") for x in CONDITIONS}
        yield name, label + ", retuned" * (when == "retuned"), tuned, runs


def figures(content: Content) -> dict[str, Figure]:
    """Draw the training loss after every epoch, a panel for each condition."""
    drawn, [axes] = panels((1, len(CONDITIONS)), 3.9, sharey=True)
    for name, label, _, runs in _methods(content):
        line = {"psi_sgd_unit": "--"}.get(name, "-")
        line = ":" if label.endswith("retuned") else line
        style = {**look(name), "linestyle": line, "label": label}
        for run, panel in zip(runs.values(), axes, strict=True):
            if run is not None:
                curve = np.array(run["curve"], float)  # None: NaN
                panel.plot(curve, markevery=2, **style)
    for title, panel in zip(_titles(content), axes, strict=True):
        title = title.replace(", ", ",\n")
        panel.set(yscale="log", title=title, xlabel="epoch")
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes[0].set_ylabel("training loss")
    lines = axes[1].get_legend_handles_labels()[0]
    legend_below(drawn, 3, lines)
    return {"unbalanced": drawn}
