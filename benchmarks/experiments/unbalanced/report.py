"""Table and figure of the experiment with unbalanced layers."""

import numpy as np
from matplotlib.figure import Figure

from benchmarks.experiments.tuning import tuned_to
from benchmarks.harness import pages
from benchmarks.harness.colours import COLOURS
from benchmarks.harness.figures import styled
from benchmarks.harness.results import Content

CONDITIONS = ("balanced", "unbalanced", "usual epsilon")


def report(content: Content) -> str:
    """Return losses and accuracies by method and condition."""
    kinds, titles = ("loss", "accuracy"), _titles(content)
    rows = [["", *(f"{x}, {y}" for x in kinds for y in titles), "tuned to"]]
    for label, tuned, runs in _methods(content):
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
    """Yield each row's label, tuning and runs by condition."""
    settings, parts = content["settings"], content["parts"]
    cases = [("tuned", name) for name in settings["methods"]]
    cases += [("retuned", name) for name in settings["retuned"]]
    for when, name in cases:
        tuned = parts[f"{when} {name}"]
        label = tuned["label"].replace(", tuned weight", ", weight")
        runs = {x: parts.get(f"{when} {name}, {x}") for x in CONDITIONS}
        yield label + ", retuned" * (when == "retuned"), tuned, runs


@styled
def figures(content: Content) -> dict[str, Figure]:
    """Draw the training loss after every epoch, a panel for each condition."""
    drawn = Figure(figsize=(10, 4.2))
    panels = drawn.subplots(1, len(CONDITIONS), sharey=True)
    colours: dict[str, str] = {}
    for label, _, runs in _methods(content):
        base = label.removesuffix(", retuned")
        colour = colours.setdefault(base, COLOURS[len(colours) % len(COLOURS)])
        for run, axes in zip(runs.values(), panels, strict=True):
            if run is not None:
                axes.plot(
                    np.array(run["curve"], float),  # None: NaN
                    color=colour,
                    linestyle=":" if label != base else "-",
                    linewidth=2 if label.startswith("psi") else 1.3,
                    label=label,
                )
    for title, axes in zip(_titles(content), panels, strict=True):
        axes.set(yscale="log", title=title, xlabel="epoch")
    panels[0].set_ylabel("training loss")
    lines = panels[1].get_legend_handles_labels()
    drawn.legend(*lines, loc="outside lower center", ncols=4)
    return {"unbalanced": drawn}
