"""Tables and figure of the accuracy experiment, and its paired tests."""

import itertools

import numpy as np
from matplotlib.figure import Figure

from benchmarks.experiments.paired import compare, marks
from benchmarks.experiments.tuning import tuned_to
from benchmarks.harness import pages
from benchmarks.harness.colours import DARK_GREY, in_order, look
from benchmarks.harness.figures import panels
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


def figures(content: Content) -> dict[str, Figure]:
    """Draw differences from the baseline, with 95 % confidence intervals."""
    methods, cases = content["settings"]["methods"], _cases(content["settings"])
    drawn, axes = panels((-(-len(cases) // 2), 2), 2.3, sharey=True)
    found = _compare(methods, _accuracies(content)).confidence_interval()
    intervals = np.stack([found.low, found.high])
    for panel, (column, noise), ends in zip(
        axes.flat, cases, np.moveaxis(intervals, -1, 0), strict=False
    ):
        _draw(panel, methods, ends)
        wrong = f"{100 * noise:g} % wrong" if noise else "right"
        panel.set_title(f"{column}, {wrong} labels", fontsize=9.5)
    others = [TUNED[name].label for name in _others(methods)]
    axes[0, 0].set_yticks(range(len(others)), others)
    axes[0, 0].invert_yaxis()
    less = f"test accuracy (%) less that of {TUNED[BASELINE].label}"
    drawn.supxlabel(less, fontsize=10)
    return {"accuracy": drawn}


def _others(methods):
    """Return the methods but the baseline, as figures list them."""
    return in_order(x for x in methods if x != BASELINE)


def _draw(axes, methods, ends):
    """Draw the intervals of a case, of shape (2, methods)."""
    for place, name in enumerate(_others(methods)):
        low, high = ends[:, methods.index(name)]
        style = {"linestyle": "", **look(name)}
        axes.errorbar((low + high) / 2, place, xerr=(high - low) / 2, **style)
    axes.axvline(0, color=DARK_GREY, linewidth=1)
    axes.locator_params(axis="x", nbins=5)
