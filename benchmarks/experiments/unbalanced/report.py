"""Table and figure of the experiment with unbalanced layers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.experiments.tuning import tuned_to
from benchmarks.harness import pages
from benchmarks.harness.colours import COLOURS
from benchmarks.harness.results import Content

CONDITIONS = ("balanced", "unbalanced", "usual epsilon")
NAMES = ("lr ", "wd ")


def report(content: Content) -> str:
    """Return losses and accuracies by method and condition."""
    settings = content["settings"]
    titles = _titles(settings)
    rows = [
        [
            "",
            *(f"loss, {title}" for title in titles),
            *(f"accuracy, {title}" for title in titles),
            "tuned to",
        ]
    ]
    for label, tuned, runs in _methods(content):
        losses = [_loss(runs.get(name)) for name in CONDITIONS]
        accuracies = [_accuracy(runs.get(name)) for name in CONDITIONS]
        rows.append([label, *losses, *accuracies, tuned_to(tuned, NAMES)])
    return f"{_caption(settings)}\n\n{pages.table(rows, right=True)}"


def _titles(settings: dict[str, Any]) -> tuple[str, ...]:
    return (
        *("balanced", "unbalanced"),
        f"unbalanced, epsilon {settings['epsilons'][1]:g}",
    )


def _methods(content: Content) -> Iterator[tuple[str, dict, dict]]:
    """Yield each row's label, tuning and runs by condition."""
    settings, parts = content["settings"], content["parts"]
    cases = [("tuned", name) for name in settings["methods"]]
    cases += [("retuned", name) for name in settings["retuned"]]
    for when, name in cases:
        tuned = parts[f"{when} {name}"]
        label = tuned["label"].replace(", tuned weight", ", weight")
        runs = {x: parts.get(f"{when} {name}, {x}") for x in CONDITIONS}
        yield label + ", retuned" * (when == "retuned"), tuned, runs


def _caption(settings: dict[str, Any]) -> str:
    first, second = settings["factors"]
    return (
        f"Training loss and test accuracy (%) after {settings['epochs']} epochs"
        f" of {settings['examples']} images of {settings['dataset']} in batches"
        f" of {settings['batch_size']}; {settings['width']} hidden units; mean"
        f" ± standard deviation of {settings['seeds']} seeds. Unbalanced: the"
        f" first kernel times {first:g}, the second times {second:g}. The"
        f" epsilon of batch normalization is {settings['epsilons'][0]:g}, but"
        f" {settings['epsilons'][1]:g}, which is Flax's, where it is named."
        " Tuned on validation data with 12 trials and"
        f" {settings['tuning_seeds']} seeds, balanced; *retuned*: with 12"
        " trials unbalanced. A star marks a choice at the edge of its grid."
    )


def _loss(run: dict[str, Any] | None) -> str:
    if run is None:
        return ""
    if None in run["loss"]:
        return "diverged"
    return f"{np.mean(run['loss']):.4f} ± {np.std(run['loss'], ddof=1):.4f}"


def _accuracy(run: dict[str, Any] | None) -> str:
    if run is None:
        return ""
    percent = 100 * np.array(run["accuracy"])
    return f"{percent.mean():.1f} ± {percent.std(ddof=1):.1f}"


def figures(content: Content) -> dict[str, Figure]:
    """Draw the training loss after every epoch, a panel for each condition."""
    drawn = Figure(figsize=(10, 4.2), layout="constrained")
    panels = drawn.subplots(1, len(CONDITIONS), sharey=True)
    colours: dict[str, str] = {}
    for label, _, runs in _methods(content):
        base = label.removesuffix(", retuned")
        colour = colours.setdefault(base, COLOURS[len(colours) % len(COLOURS)])
        for condition, axes in zip(CONDITIONS, panels, strict=True):
            if runs[condition] is None:
                continue
            axes.plot(
                np.array(runs[condition]["curve"], float),  # None: NaN
                color=colour,
                linestyle=":" if label != base else "-",
                linewidth=2 if label.startswith("psi") else 1.3,
                label=label,
            )
    for title, axes in zip(_titles(content["settings"]), panels, strict=True):
        axes.set_yscale("log")
        axes.set_title(title, fontsize="medium")
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("training loss")
    handles, labels = panels[1].get_legend_handles_labels()
    drawn.legend(
        handles, labels, fontsize="small", loc="outside lower center", ncols=4
    )
    return {"unbalanced": drawn}
