"""Tables and figure of the accuracy experiment, and its paired tests."""

import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from benchmarks.experiments.cells import mean_and_deviation, tuned_to
from benchmarks.harness import pages
from benchmarks.harness.colours import COLOURS
from benchmarks.harness.results import Content
from benchmarks.optimizers import TUNED

__all__ = ["BASELINE", "figures", "holm", "paired", "report"]

BASELINE = "sgd_decay"
"""SGD with tuned weight decay, which the others are compared with."""

LEVEL = 0.05

_Case = tuple[str, float]  # data set and network, and share of wrong labels

CHOSEN = (
    "What was tuned, by column and share of wrong labels: the learning rate"
    " and, where there is one, the weight decay. A star marks the edge of a"
    " grid, beyond which there might be better ones:"
)


def report(content: Content) -> str:
    """Return tables of accuracies, of comparisons and of tuned values."""
    settings, marks = content["settings"], _marks(content)
    tables = [
        f"{_title(noise)}\n\n{_accuracies(content, noise, marks)}"
        for noise in settings["noises"]
    ]
    about = _caption(content, len(marks))
    counts = _counts(settings, marks)
    return "\n\n".join([about, *tables, counts, CHOSEN, _chosen(content)])


def figures(content: Content) -> dict[str, Figure]:
    """Draw differences from the baseline, with 95 % confidence intervals."""
    settings = content["settings"]
    shape = len(settings["noises"]), len(_columns(settings))
    size = 2.2 + 2.6 * shape[1], 1 + 2.7 * shape[0]
    drawn = Figure(figsize=size, layout="constrained")
    panels = drawn.subplots(*shape, sharey=True, squeeze=False)
    others = _others(settings)
    for (column, noise), axes in zip(
        _cases(settings), panels.flat, strict=True
    ):
        for place, name in enumerate(others):
            found = _test(content, (column, noise), name)
            low, high = found.confidence_interval()
            colour = COLOURS[6 if "psi" in name else 1]
            middle, margin = 50 * (low + high), 50 * (high - low)
            axes.errorbar(middle, place, xerr=margin, fmt="o", color=colour)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_title(f"{column}\n{_title(noise).lower()}", fontsize=9)
        axes.grid(alpha=0.3)
    labels = [TUNED[name].label for name in others]
    panels[0, 0].set_yticks(range(len(others)), labels)
    panels[0, 0].invert_yaxis()
    drawn.supxlabel(
        f"test accuracy (%) less that of {TUNED[BASELINE].label}", fontsize=10
    )
    return {"accuracy": drawn}


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Any:
    """Return SciPy's paired t-test; p is NaN where all differences are 0."""
    with warnings.catch_warnings():
        # Of a difference that is the same for all seeds.
        warnings.simplefilter("ignore", RuntimeWarning)
        return stats.ttest_rel(ours, theirs)


def holm(p: Sequence[float]) -> np.ndarray:
    """Correct p-values for their number, by Holm's step-down method.

    Examples:
        >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
        [0.03, 0.06, 0.06]
    """
    steps = np.sort(p) * np.arange(len(p), 0, -1)
    order = np.argsort(np.argsort(p))
    return np.maximum.accumulate(steps).clip(max=1)[order]


def _columns(settings: dict[str, Any]) -> list[str]:
    pairs = itertools.product(settings["datasets"], settings["networks"])
    return ["/".join(pair) for pair in pairs]


def _cases(settings: dict[str, Any]) -> list[_Case]:
    return [
        (column, noise)
        for noise in settings["noises"]
        for column in _columns(settings)
    ]


def _others(settings: dict[str, Any]) -> list[str]:
    return [name for name in settings["methods"] if name != BASELINE]


def _title(noise: float) -> str:
    return f"{100 * noise:g} % of labels wrong" if noise else "Right labels"


def _part(content: Content, case: _Case, name: str) -> dict[str, Any]:
    column, noise = case
    return content["parts"][f"{column}/{noise:g}/{name}"]


def _test(content: Content, case: _Case, name: str) -> Any:
    ours, theirs = (_part(content, case, x) for x in (name, BASELINE))
    return paired(ours["accuracy"], theirs["accuracy"])


def _marks(content: Content) -> dict[tuple[_Case, str], str]:
    """Return, by case and method: above, below, or no difference found."""
    settings = content["settings"]
    tests = {
        (case, name): _test(content, case, name)
        for case in _cases(settings)
        for name in _others(settings)
    }
    p = holm([np.nan_to_num(test.pvalue, nan=1.0) for test in tests.values()])
    signs = ["▲" if test.statistic > 0 else "▼" for test in tests.values()]
    found = np.where(p < LEVEL, signs, "")
    return dict(zip(tests, found.tolist(), strict=True))


def _accuracies(content: Content, noise: float, marks: dict) -> str:
    settings = content["settings"]
    cases = [(column, noise) for column in _columns(settings)]
    columns = [
        [TUNED[name].label for name in settings["methods"]],
        *(_column(content, case, marks) for case in cases),
    ]
    head = ["", *(column for column, _ in cases)]
    return pages.table([head, *zip(*columns, strict=True)])


def _column(content: Content, case: _Case, marks: dict) -> list[str]:
    """Return the cells of a column, with the highest mean in bold."""
    accuracies = {
        name: 100 * np.array(_part(content, case, name)["accuracy"])
        for name in content["settings"]["methods"]
    }
    best = max(np.mean(values) for values in accuracies.values())
    cells = []
    for name, values in accuracies.items():
        mean, rest = mean_and_deviation(values, 2).split(" ", 1)
        mean = f"**{mean}**" if values.mean() == best else mean
        cells.append(f"{mean} {rest} {marks.get((case, name), '')}".strip())
    return cells


def _counts(settings: dict[str, Any], marks: dict) -> str:
    """Return how often each method is above and below, in all columns."""
    rows = [["", "▲ above", "not told apart", "▼ below"]]
    for name in _others(settings):
        found = [marks[case, name] for case in _cases(settings)]
        counts = [str(found.count(mark)) for mark in ("▲", "", "▼")]
        rows.append([TUNED[name].label, *counts])
    return (
        f"Against {TUNED[BASELINE].label}, of {len(_cases(settings))}"
        f" comparisons each:\n\n{pages.table(rows, right=True)}"
    )


def _chosen(content: Content) -> str:
    settings = content["settings"]
    cases = _cases(settings)
    rows = [["", *(f"{column}, {noise:g}" for column, noise in cases)]]
    for name in settings["methods"]:
        parts = [_part(content, case, name) for case in cases]
        cells = [tuned_to(part, names=("", "")) for part in parts]
        rows.append([TUNED[name].label, *cells])
    return pages.table(rows)


def _caption(content: Content, comparisons: int) -> str:
    settings = content["settings"]
    networks = "; ".join(_network(settings, x) for x in settings["networks"])
    trials = {len(part["trials"]) for part in content["parts"].values()}
    return (
        f"Test accuracy in percent, mean ± standard deviation of"
        f" {settings['seeds']} seeds. Networks with BatchNorm: {networks}."
        f" {settings['train']} training images in batches of"
        f" {settings['batch_size']}; {' or '.join(map(str, trials))} trials"
        f" each, with other seeds, on"
        f" {settings['validation']} other images of the training part. Bold:"
        f" the highest mean of a column. ▲ and ▼: above and below"
        f" {TUNED[BASELINE].label}, by a paired t-test over seeds at the 5 %"
        f" level, Holm's correction over all {comparisons} comparisons."
    )


def _network(settings: dict[str, Any], name: str) -> str:
    widths = "-".join(map(str, settings[name]))
    tuning = settings[f"{name}_tuning_seeds"]
    return (
        f"{name} {widths}, {settings[f'{name}_epochs']} epochs, tuned with"
        f" {tuning} seed{'s' * (tuning > 1)}"
    )
