"""What the accuracy experiment found: tables, a paired test, a figure."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from benchmarks import pages
from benchmarks.methods import METHODS
from benchmarks.report import COLOURS

__all__ = ["BASELINE", "Difference", "compare", "figure", "holm", "table"]

BASELINE = "sgd_decay"
"""What the others are compared with: SGD with tuned weight decay."""

LEVEL = 0.05

TUNED = (
    "What was tuned, by column and share of wrong labels: the learning rate"
    " and, where there is one, the weight decay. A star marks the edge of a"
    " grid, beyond which there might be better ones:"
)


class Difference(NamedTuple):
    """Accuracies less those of another method, from the same seeds.

    Attributes:
        mean: over the seeds.
        margin: half of the 95 % confidence interval of it.
        p: of a paired t-test, two-sided.
    """

    mean: float
    margin: float
    p: float


def compare(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Compare accuracies seed by seed.

    Args:
        ours: of two or more seeds.
        theirs: of the same seeds.

    Returns:
        The difference; p is 0 or 1 if it is the same for all seeds.

    Examples:
        >>> found = compare([0.97, 0.96, 0.98], [0.95, 0.95, 0.95])
        >>> round(found.mean, 2), round(found.margin, 3), round(found.p, 3)
        (0.02, 0.025, 0.074)
    """
    differences = np.subtract(ours, theirs)
    mean, degrees = differences.mean(), len(differences) - 1
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    margin = error * stats.t.ppf(0.975, degrees)
    if not error:
        return Difference(float(mean), 0.0, float(mean == 0))
    p = 2 * stats.t.sf(abs(mean) / error, degrees)
    return Difference(float(mean), float(margin), float(p))


def holm(p: Sequence[float]) -> np.ndarray:
    """Correct p-values for their number, by Holm's step-down method.

    Args:
        p: the p-values of all tests.

    Returns:
        Corrected ones: taking those below 0.05 for real, the chance of one
        mistake or more is at most 5 %.

    Examples:
        >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p)
    steps = np.sort(p) * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.maximum.accumulate(steps).clip(max=1)
    return corrected


def table(content: dict[str, Any]) -> str:
    """Tables of accuracies, one for each noise, and of what was tuned.

    Args:
        content: that of the results.

    Returns:
        Markdown. A mark stands behind accuracies that differ from those of
        `BASELINE`, all tests of the experiment being corrected together.
    """
    settings = content["settings"]
    marks = _marks(content)
    parts = [_caption(settings)]
    for noise in settings["noises"]:
        parts += [_title(noise), _accuracies(content, noise, marks)]
    parts += [_counts(content, marks), TUNED, _chosen(content)]
    return "\n\n".join(parts)


def figure(content: dict[str, Any]) -> Figure:
    """Draw the differences from `BASELINE`, with their confidence intervals.

    Args:
        content: that of the results.

    Returns:
        A figure with a panel for each data set, network and noise.
    """
    settings = content["settings"]
    columns = _columns(settings)
    noises = settings["noises"]
    drawn = Figure(
        figsize=(2.2 + 2.6 * len(columns), 1 + 2.7 * len(noises)),
        layout="constrained",
    )
    panels = drawn.subplots(
        len(noises), len(columns), sharey=True, squeeze=False
    )
    names = [name for name in settings["methods"] if name != BASELINE]
    for noise, row in zip(noises, panels, strict=True):
        for column, axes in zip(columns, row, strict=True):
            for place, name in enumerate(names):
                found = _difference(content, column, noise, name)
                axes.errorbar(
                    100 * found.mean,
                    place,
                    xerr=100 * found.margin,
                    fmt="o",
                    color=COLOURS[6 if "psi" in name else 1],
                )
            axes.axvline(0, color="black", linewidth=0.8)
            axes.set_title(f"{column}\n{_title(noise).lower()}", fontsize=9)
            axes.grid(alpha=0.3)
    labels = [METHODS[name].label for name in names]
    panels[0, 0].set_yticks(range(len(names)), labels)
    panels[0, 0].invert_yaxis()
    drawn.supxlabel(
        f"test accuracy (%) less that of {METHODS[BASELINE].label}", fontsize=10
    )
    return drawn


def _columns(settings: dict[str, Any]) -> list[str]:
    networks = [network for network, *_ in settings["networks"]]
    return [
        f"{data}/{net}" for data in settings["datasets"] for net in networks
    ]


def _title(noise: float) -> str:
    return f"{100 * noise:g} % of labels wrong" if noise else "Right labels"


def _part(content, column: str, noise: float, name: str) -> dict[str, Any]:
    return content["parts"][f"{column}/{noise:g}/{name}"]


def _difference(content, column, noise, name) -> Difference:
    ours, theirs = (
        _part(content, column, noise, method)["accuracy"]
        for method in (name, BASELINE)
    )
    return compare(ours, theirs)


def _marks(content: dict[str, Any]) -> dict[tuple[str, float, str], str]:
    """By column, noise and method: above, below, or not to be told apart."""
    settings = content["settings"]
    cases = [
        (column, noise, name)
        for column in _columns(settings)
        for noise in settings["noises"]
        for name in settings["methods"]
        if name != BASELINE
    ]
    found = [_difference(content, *case) for case in cases]
    corrected = holm([difference.p for difference in found])
    return {
        case: _mark(difference.mean, p)
        for case, difference, p in zip(cases, found, corrected, strict=True)
    }


def _mark(mean: float, p: float) -> str:
    if p >= LEVEL:
        return ""
    return "▲" if mean > 0 else "▼"


def _accuracies(content, noise: float, marks) -> str:
    settings = content["settings"]
    columns = _columns(settings)
    best = {
        column: max(
            np.mean(_part(content, column, noise, name)["accuracy"])
            for name in settings["methods"]
        )
        for column in columns
    }
    rows = [["", *columns]]
    for name in settings["methods"]:
        row = [METHODS[name].label]
        for column in columns:
            percent = 100 * np.array(
                _part(content, column, noise, name)["accuracy"]
            )
            mean = f"{percent.mean():.2f}"
            if percent.mean() == 100 * best[column]:
                mean = f"**{mean}**"
            mark = marks.get((column, noise, name), "")
            row.append(f"{mean} ± {percent.std(ddof=1):.2f} {mark}".strip())
        rows.append(row)
    return pages.table(rows)


def _counts(content, marks) -> str:
    """How often each method is above and below, in all columns."""
    settings = content["settings"]
    total = len(_columns(settings)) * len(settings["noises"])
    rows = [["", "▲ above", "not told apart", "▼ below"]]
    for name in settings["methods"]:
        if name == BASELINE:
            continue
        of_method = [mark for case, mark in marks.items() if case[2] == name]
        counts = [str(of_method.count(mark)) for mark in ("▲", "", "▼")]
        rows.append([METHODS[name].label, *counts])
    return (
        f"Against {METHODS[BASELINE].label}, of {total} comparisons each:\n\n"
        + pages.table(rows, right=True)
    )


def _chosen(content: dict[str, Any]) -> str:
    """The learning rate and the weight decay of each column."""
    settings = content["settings"]
    cases = [
        (column, noise)
        for noise in settings["noises"]
        for column in _columns(settings)
    ]
    rows = [
        [
            "",
            *(f"{column}, {noise:g}" for column, noise in cases),
        ]
    ]
    for name in settings["methods"]:
        cells = [_tuned(_part(content, *case, name)) for case in cases]
        rows.append([METHODS[name].label, *cells])
    return pages.table(rows)


def _tuned(part: dict[str, Any]) -> str:
    """The rate, and the decay if there is one; a star at an edge."""
    cells = []
    for key in ("learning_rate", "weight_decay"):
        value, star = part["chosen"][key], "★" * (key in part["at_edge"])
        if value:
            cells.append(f"{value:g}{star}")
    return ", ".join(cells)


def _caption(settings: dict[str, Any]) -> str:
    networks = "; ".join(
        f"{net} {'-'.join(map(str, settings[net]))}, {count} epochs, tuned with"
        f" {tuning} seed{'s' * (tuning > 1)}"
        for net, count, tuning in settings["networks"]
    )
    comparisons = (
        (len(settings["methods"]) - 1)
        * len(_columns(settings))
        * len(settings["noises"])
    )
    trials = {len(METHODS[name].trials()) for name in settings["methods"]}
    return (
        f"Test accuracy in percent, mean ± standard deviation of"
        f" {settings['seeds']} seeds. Networks with BatchNorm: {networks}."
        f" {settings['train']} training images in batches of"
        f" {settings['batch_size']}; {' or '.join(map(str, trials))} trials"
        f" each, with other seeds, on"
        f" {settings['validation']} other images of the training part. Bold:"
        f" the highest mean of a column. ▲ and ▼: above and below"
        f" {METHODS[BASELINE].label}, by a paired t-test over seeds at the 5 %"
        f" level, Holm's correction over all {comparisons} comparisons."
    )
