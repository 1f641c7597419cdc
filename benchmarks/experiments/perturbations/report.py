"""Choice of rates and strengths, tables, figure and claims."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from benchmarks.experiments.paired import compare, marks
from benchmarks.experiments.perturbations.methods import LABELS, METHODS
from benchmarks.experiments.tuning import is_at_edge
from benchmarks.harness import pages
from benchmarks.harness.colours import LOOKS
from benchmarks.harness.figures import legend_below, panels
from benchmarks.harness.results import Content


class Row(NamedTuple):
    """A method and an optimizer on a data set.

    Attributes:
        method: name of the method.
        optimizer: name of the optimizer.
        rates: those that were tried.
        validation: accuracies, of shape `(scales, rates, strengths, seeds)`.
        test: the same of the test part.
        loss: its losses, NaN where they are non-finite.
    """

    method: str
    optimizer: str
    rates: list[float]
    validation: np.ndarray
    test: np.ndarray
    loss: np.ndarray

    @property
    def label(self) -> str:
        """Name in tables."""
        return f"{METHODS[self.method].label}, {LABELS[self.optimizer]}"

    @property
    def is_invariant(self) -> bool:
        """True where no result may depend on powers of two."""
        return self.optimizer == "psi" and METHODS[self.method].relative

    def is_constant(self) -> bool:
        """Tell whether results are the same at every scale."""
        kinds = self.validation, self.test, self.loss
        return all(
            np.array_equal(x, x[:1].repeat(len(x), 0), equal_nan=True)
            for x in kinds
        )

    def choice(self, scale: int) -> tuple[int, int]:
        """Return the rate and the strength that a scale chooses, as indices.

        Their mean validation accuracy is the highest; the first of several.
        """
        means = self.validation[scale].mean(-1)
        rate, strength = np.unravel_index(means.argmax(), means.shape)
        return int(rate), int(strength)

    def point(self, choice: tuple[int, int]) -> tuple[str, str]:
        """Return a rate and a strength, with stars at edges of their grids."""
        method, (rate, strength) = METHODS[self.method], choice
        chosen = _starred(rate, self.rates)
        strength = _starred(strength, method.strengths)
        return chosen, f"{method.symbol} {strength}" if method.symbol else ""

    def accuracies(self, scale: int, choice: tuple[int, int]) -> np.ndarray:
        """Return test accuracies in percent, by seed."""
        return 100 * self.test[scale][choice]


def _starred(index: int, grid: Any) -> str:
    return f"{grid[index]:g}{'★' * is_at_edge(grid[index], grid)}"


def rows(content: Content, dataset: str) -> Iterator[Row]:
    """Yield a row for each method and optimizer on a data set."""
    settings, parts = content["settings"], content["parts"]
    for method in settings["methods"]:
        for optimizer in LABELS:
            found = [
                parts[f"{dataset}/{method}/{optimizer}/{scale:g}"]
                for scale in settings["scales"]
            ]
            kinds = "validation", "test", "test loss"
            results = [
                np.array([part[kind] for part in found], float)
                for kind in kinds
            ]
            yield Row(method, optimizer, settings["rates"], *results)


def report(content: Content) -> str:
    """Return the settings and, for each data set, two tables."""
    settings, texts = content["settings"], [pages.settings(content)]
    found = {x: list(rows(content, x)) for x in settings["datasets"]}
    marked = _marks(found, _one(settings))
    for dataset, here in found.items():
        once = _tuned_once(settings, here, marked[dataset])
        each = _tuned_at_each(settings, here)
        tables = (pages.table(x, right=True) for x in (once, each))
        texts += [f"**{dataset}**", *tables]
    return "\n\n".join(texts)


def _one(settings: dict[str, Any]) -> int:
    return settings["scales"].index(1.0)


def _differences(found: list[Row], one: int) -> np.ndarray:
    """Return accuracies at scale 1 less those of no perturbation, by row."""
    chosen = {
        (x.method, x.optimizer): x.accuracies(one, x.choice(one)) for x in found
    }
    return np.array([y - chosen["none", x[1]] for x, y in chosen.items()])


def _marks(found: dict[str, list[Row]], one: int) -> dict[str, np.ndarray]:
    """Mark significant differences, corrected for the number of all tests."""
    values = np.stack([_differences(x, one) for x in found.values()])
    tested = [x.method != "none" for x in next(iter(found.values()))]
    marked = marks(compare(values, np.zeros(1)), tested)
    return dict(zip(found, marked, strict=True))


def _tuned_once(
    settings: dict[str, Any], found: list[Row], marked: np.ndarray
) -> list[list[str]]:
    one = _one(settings)
    scales = [f"x {scale:g}" for scale in settings["scales"]]
    head = ["tuned at scale 1", "rate", "strength", *scales]
    table = [[*head, "at x 1 less none", "test loss at x 1"]]
    differences = _differences(found, one)
    for row, difference, mark in zip(found, differences, marked, strict=True):
        choice = row.choice(one)
        cells = [
            pages.spread(row.accuracies(scale, choice), 1)
            for scale in range(len(scales))
        ]
        less = f"{pages.spread(difference, 1)} {mark}".strip()
        less = "" if row.method == "none" else less
        loss = pages.spread(row.loss[one][choice], 3)
        table.append([row.label, *row.point(choice), *cells, less, loss])
    return table


def _tuned_at_each(
    settings: dict[str, Any], found: list[Row]
) -> list[list[str]]:
    scales = [f"x {scale:g}" for scale in settings["scales"]]
    table = [["tuned at each scale", *scales]]
    for row in found:
        cells = []
        for scale in range(len(scales)):
            choice = row.choice(scale)
            mean = row.accuracies(scale, choice).mean()
            point = ", ".join(filter(None, row.point(choice)))
            cells.append(f"{mean:.1f} ({point})")
        table.append([row.label, *cells])
    return table


def faults(content: Content) -> list[str]:
    """Return the claims that do not hold.

    With psi and a perturbation relative to norms, factors that are powers of
    two change no result, to the bit.
    """
    settings = content["settings"]
    exact = all(math.frexp(x)[0] == 0.5 for x in settings["scales"])
    return [
        f"{dataset}, {row.label}: results depend on the scale."
        for dataset in settings["datasets"]
        for row in rows(content, dataset)
        if exact and row.is_invariant and not row.is_constant()
    ]


def figures(content: Content) -> dict[str, Figure]:
    """Draw accuracy against scale, tuned at scale 1."""
    settings = content["settings"]
    datasets, one = settings["datasets"], _one(settings)
    shape = len(datasets), len(LABELS)
    drawn, axes = panels(shape, 2.7, sharex=True, sharey="row")
    for row_of_axes, dataset in zip(axes, datasets, strict=True):
        by_optimizer = dict(zip(LABELS, row_of_axes, strict=True))
        for row in rows(content, dataset):
            _draw(by_optimizer[row.optimizer], row, settings["scales"], one)
        row_of_axes[0].set_ylabel(f"{dataset}:\ntest accuracy (%)")
    for panel, label in zip(axes[0], LABELS.values(), strict=True):
        panel.set_title(label)
    for panel in axes[-1]:
        panel.set_xlabel("scale of initial filters")
    legend_below(drawn, 4)
    return {"perturbations": drawn}


def _draw(axes: Any, row: Row, scales: list[float], one: int) -> None:
    style, choice = LOOKS[list(METHODS).index(row.method)], row.choice(one)
    found = [row.accuracies(x, choice) for x in range(len(scales))]
    axes.set_xscale("log", base=2)
    axes.errorbar(
        scales,
        np.mean(found, 1),
        yerr=np.std(found, 1, ddof=1) if len(found[0]) > 1 else None,
        elinewidth=1,
        label=METHODS[row.method].label,
        **style,
    )
