"""What came out of unbalanced weights: a table and a figure."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks import pages
from benchmarks.report import COLOURS

__all__ = ["CONDITIONS", "figure", "table"]

CONDITIONS = ("balanced", "unbalanced", "usual epsilon")


def table(content: dict[str, Any]) -> str:
    """Losses and accuracies by method and condition, in Markdown.

    Args:
        content: that of the results.

    Returns:
        The caption and the table; ± is a standard deviation over seeds.
    """
    settings = content["settings"]
    usual = f"epsilon {settings['epsilons'][1]:g}"
    heads = ("balanced", "unbalanced", f"unbalanced, {usual}")
    rows = [
        [
            "",
            *(f"loss, {head}" for head in heads),
            *(f"accuracy, {head}" for head in heads),
            "tuned to",
        ]
    ]
    for label, tuned, runs in _methods(content):
        rows.append(
            [
                label,
                *(_loss(runs.get(name)) for name in CONDITIONS),
                *(_accuracy(runs.get(name)) for name in CONDITIONS),
                _chosen(tuned),
            ]
        )
    return "\n\n".join([_caption(settings), pages.table(rows, right=True)])


def _methods(content: dict[str, Any]) -> Iterator[tuple[str, dict, dict]]:
    """Each row's label, what was tuned, and its runs by condition."""
    settings, parts = content["settings"], content["parts"]
    for when in ("tuned", "retuned"):
        names = settings["methods" if when == "tuned" else "retuned"]
        for name in names:
            tuned = parts[f"{when} {name}"]
            label = tuned["label"].replace(", tuned weight", ", weight")
            label += ", retuned" * (when == "retuned")
            runs = {
                condition: parts[f"{when} {name}, {condition}"]
                for condition in CONDITIONS
                if f"{when} {name}, {condition}" in parts
            }
            yield label, tuned, runs


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
    values = np.array(run["loss"])
    return f"{values.mean():.4f} ± {values.std(ddof=1):.4f}"


def _accuracy(run: dict[str, Any] | None) -> str:
    if run is None:
        return ""
    values = 100 * np.array(run["accuracy"])
    return f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"


def _chosen(tuned: dict[str, Any]) -> str:
    parts = []
    for name, short in (("learning_rate", "lr"), ("weight_decay", "wd")):
        if name == "learning_rate" or tuned["chosen"][name]:
            star = "\\*" if name in tuned["at_edge"] else ""
            parts.append(f"{short} {tuned['chosen'][name]:g}{star}")
    return ", ".join(parts)


def figure(content: dict[str, Any]) -> Figure:
    """Draw the training loss after every epoch, a panel for each condition.

    Args:
        content: that of the results.

    Returns:
        A figure; lines are means over seeds.
    """
    drawn = Figure(figsize=(10, 4.2), layout="constrained")
    panels = drawn.subplots(1, len(CONDITIONS), sharey=True)
    usual = content["settings"]["epsilons"][1]
    titles = ("balanced", "unbalanced", f"unbalanced, epsilon {usual:g}")
    colours: dict[str, str] = {}
    for label, _, runs in _methods(content):
        base = label.removesuffix(", retuned")
        colour = colours.setdefault(base, COLOURS[len(colours) % len(COLOURS)])
        for condition, axes in zip(CONDITIONS, panels, strict=True):
            if condition not in runs:
                continue
            curve = np.array(runs[condition]["curve"], float)  # None: NaN
            axes.plot(
                curve,
                color=colour,
                linestyle=":" if label != base else "-",
                linewidth=2 if label.startswith("psi") else 1.3,
                label=label,
            )
    for title, axes in zip(titles, panels, strict=True):
        axes.set_yscale("log")
        axes.set_title(title, fontsize="medium")
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("training loss")
    handles, labels = panels[1].get_legend_handles_labels()
    drawn.legend(
        handles, labels, fontsize="small", loc="outside lower center", ncols=4
    )
    return drawn
