"""Tables and figure of the accuracy experiment, and its paired tests."""

import itertools

import numpy as np
from matplotlib.figure import Figure

from benchmarks.experiments.paired import compare, marks
from benchmarks.experiments.tuning import tuned_to
from benchmarks.harness import pages
from benchmarks.harness.colours import COLOURS
from benchmarks.harness.figures import styled
from benchmarks.harness.results import Content
from benchmarks.optimizers import TUNED

BASELINE = "sgd_decay"
"""SGD with tuned weight decay, which the others are compared with."""


def report(content: Content) -> str:
    """Return tables of accuracies, of comparisons and of tuned values."""
    settings, accuracies = content["settings"], _accuracies(content)
    methods, columns = settings["methods"], _columns(settings)
    marked = marks_of(methods, accuracies)
    texts = [pages.settings(content)]
    for index, noise in enumerate(settings["noises"]):
        here = slice(index * len(columns), (index + 1) * len(columns))
        cells = _cells(accuracies[:, here], marked[:, here])
        texts += [_title(noise), _table(methods, columns, cells)]
    head = [f"{column}, {noise:g}" for column, noise in _cases(settings)]
    cells = [
        [tuned_to(part, ["", ""]) for part in _parts(content, name)]
        for name in methods
    ]
    chosen = _table(methods, head, cells)
    return "\n\n".join([*texts, _counts(methods, marked), "Tuned to:", chosen])


def marks_of(methods: list[str], accuracies: np.ndarray) -> np.ndarray:
    """Mark significant differences from the baseline: ▲ above it, ▼ below it.

    Accuracies are `(methods, cases, seeds)`. Paired t-tests over seeds are
    corrected for their number.
    """
    others = np.array([name != BASELINE for name in methods])
    return marks(_compare(methods, accuracies), others[:, None])


def _compare(methods, accuracies):
    """Test the seeds' differences of all methods from the baseline."""
    return compare(accuracies, accuracies[methods.index(BASELINE)])


def _columns(settings):
    pairs = itertools.product(settings["datasets"], settings["networks"])
    return ["/".join(pair) for pair in pairs]


def _cases(settings):
    """Return columns and shares of wrong labels."""
    return [(x, y) for y in settings["noises"] for x in _columns(settings)]


def _parts(content, method):
    """Return the parts of a method, in the order of the cases."""
    cases = _cases(content["settings"])
    return [content["parts"][f"{x}/{y:g}/{method}"] for x, y in cases]


def _accuracies(content):
    """Return accuracies in percent, by method, case and seed."""
    methods = content["settings"]["methods"]
    found = [[x["accuracy"] for x in _parts(content, name)] for name in methods]
    return 100 * np.array(found)


def _title(noise):
    return f"{100 * noise:g} % of labels wrong" if noise else "Right labels"


def _table(methods, head, cells):
    labels = [TUNED[name].label for name in methods]
    rows = [[x, *y] for x, y in zip(labels, cells, strict=True)]
    return pages.table([["", *head], *rows])


def _cells(accuracies, marked):
    """Return mean, deviation and mark, with a column's highest mean in bold."""
    means, deviations = accuracies.mean(-1), accuracies.std(-1, ddof=1)
    bold = np.where(means == means.max(0), "**", "")
    cells = np.vectorize(
        lambda mean, deviation, bold, mark: (
            f"{bold}{mean:.2f}{bold} ± {deviation:.2f} {mark}".strip()
        )
    )
    return cells(means, deviations, bold, marked).tolist()


def _counts(methods, marked):
    """Return how often each method is above and below, in all columns."""
    rows = [["", "▲ above", "not told apart", "▼ below"]]
    for name, found in zip(methods, marked, strict=True):
        if name != BASELINE:
            counts = [str(np.sum(found == mark)) for mark in ("▲", "", "▼")]
            rows.append([TUNED[name].label, *counts])
    above = (
        f"Against {TUNED[BASELINE].label}, in {marked.shape[1]} columns each:"
    )
    return f"{above}\n\n{pages.table(rows, right=True)}"


@styled
def figures(content: Content) -> dict[str, Figure]:
    """Draw differences from the baseline, with 95 % confidence intervals."""
    settings, methods = content["settings"], content["settings"]["methods"]
    shape = len(settings["noises"]), len(_columns(settings))
    drawn = Figure(figsize=(2.2 + 2.6 * shape[1], 1 + 2.7 * shape[0]))
    panels = drawn.subplots(*shape, sharey=True, squeeze=False)
    found = _compare(methods, _accuracies(content)).confidence_interval()
    others = [name for name in methods if name != BASELINE]
    for index, (column, noise) in enumerate(_cases(settings)):
        axes = panels.flat[index]
        for place, name in enumerate(others):
            low, high = (x[methods.index(name), index] for x in found)
            colour = COLOURS[6 if "psi" in name else 1]
            middle, margin = (low + high) / 2, (high - low) / 2
            axes.errorbar(middle, place, xerr=margin, fmt="o", color=colour)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_title(f"{column}\n{_title(noise).lower()}", fontsize=9)
    labels = [TUNED[name].label for name in others]
    panels[0, 0].set_yticks(range(len(others)), labels)
    panels[0, 0].invert_yaxis()
    less = f"test accuracy (%) less that of {TUNED[BASELINE].label}"
    drawn.supxlabel(less, fontsize=10)
    return {"accuracy": drawn}
