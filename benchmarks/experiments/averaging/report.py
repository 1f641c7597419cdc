"""Table, figure and claims of the experiment with averages over learners."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from benchmarks.experiments.averaging.methods import AVERAGES, LABELS
from benchmarks.experiments.tuning import is_at_edge
from benchmarks.harness import pages
from benchmarks.harness.colours import LOOKS
from benchmarks.harness.figures import legend_below, panels
from benchmarks.harness.results import Content

MARGINS = (1, 10)
"""Points below the best mean accuracy within which a learning rate survives."""


class Row(NamedTuple):
    """A batch size, an optimizer and an average; arrays are by rate and seed.

    Attributes:
        label: its name in tables.
        rates: learning rates.
        validation: accuracies of the mean of learners in percent.
        test: the same of the test part.
        one: the same as `test`, of one learner.
        distance: distances of learners; NaN where they are not finite.
    """

    label: str
    rates: list[float]
    validation: np.ndarray
    test: np.ndarray
    one: np.ndarray
    distance: np.ndarray

    @property
    def best(self) -> int:
        """Index of the rate with the highest mean validation accuracy."""
        return int(self.validation.mean(1).argmax())

    def largest(self, margin: float) -> float:
        """Return the largest rate whose accuracy is within this of the best."""
        means = self.validation.mean(1)
        [within] = np.nonzero(means >= means.max() - margin)
        return self.rates[within[-1]]


def rows(content: Content) -> Iterator[tuple[int, str, str, Row]]:
    """Yield each batch size, optimizer and average, with their row."""
    settings, parts = content["settings"], content["parts"]
    for size in settings["batch_sizes"]:
        for optimizer in LABELS:
            for averaging in AVERAGES:
                part = parts[f"{size}/{averaging}/{optimizer}"]
                mean, one = part["mean"], part["one"]
                yield (
                    *(size, optimizer, averaging),
                    Row(
                        f"{size}, {LABELS[optimizer]}, {AVERAGES[averaging]}",
                        settings["rates"],
                        100 * np.array(mean["validation"]),
                        100 * np.array(mean["test"]),
                        100 * np.array(one["test"]),
                        np.array(part["distance"], float),
                    ),
                )


def report(content: Content) -> str:
    """Return the settings and the table."""
    head = ["batch, optimizer, average", "best rate", "mean of learners"]
    within = (f"largest within {margin}" for margin in MARGINS)
    table = [[*head, "one learner", *within, "distance, %"]]
    for *_, row in rows(content):
        best, rates = row.best, row.rates
        shown = (rates[best], *(row.largest(margin) for margin in MARGINS))
        rate, *survive = (f"{x:g}{'★' * is_at_edge(x, rates)}" for x in shown)
        accuracies = (pages.spread(x[best], 1) for x in (row.test, row.one))
        distance = f"{100 * row.distance[best].mean():.2g}"
        table.append([row.label, rate, *accuracies, *survive, distance])
    return f"{pages.settings(content)}\n\n{pages.table(table, right=True)}"


def faults(content: Content) -> list[str]:
    """Return the claims that do not hold.

    Learners that average gradients are equal, to the bit; those that average
    weights are not, unless they diverge.
    """
    wrong = []
    for _, _, averaging, row in rows(content):
        apart = row.distance[np.isfinite(row.distance)] > 0
        if averaging == "gradients" and apart.any():
            wrong.append(f"{row.label}: the learners differ.")
        if averaging != "gradients" and not apart.all():
            wrong.append(f"{row.label}: the learners are equal.")
    return wrong


def figures(content: Content) -> dict[str, Figure]:
    """Draw test accuracy against the rate, with bands of one deviation."""
    sizes, optimizers = content["settings"]["batch_sizes"], list(LABELS)
    shape = len(sizes), len(optimizers)
    drawn, axes = panels(shape, 2.3, sharex=True, sharey=True)
    for size, optimizer, averaging, row in rows(content):
        panel = axes[sizes.index(size), optimizers.index(optimizer)]
        panel.set_title(f"batch {size}, {LABELS[optimizer]}")
        _draw(panel, averaging, row)
    for panel in axes[-1]:
        panel.set_xscale("log", base=2)
        panel.set_xlabel("learning rate")
    for panel in axes[:, 0]:
        panel.set_ylabel("test accuracy (%)")
    axes[0, 0].set_ylim(0, 100)
    legend_below(drawn, 3)
    return {"averaging": drawn}


def _draw(axes: Any, averaging: str, row: Row) -> None:
    """Draw the line of a row."""
    look, mean = LOOKS[list(AVERAGES).index(averaging)], row.test.mean(1)
    deviation = row.test.std(1, ddof=int(row.test.shape[1] > 1))
    axes.plot(row.rates, mean, label=AVERAGES[averaging], **look)
    band = {"color": look["color"], "alpha": 0.15, "linewidth": 0}
    axes.fill_between(row.rates, mean - deviation, mean + deviation, **band)
