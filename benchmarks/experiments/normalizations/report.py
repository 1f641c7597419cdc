"""Choice of rates, tables, figure and claims of the experiment."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from benchmarks.experiments.normalizations.methods import (
    LABELS,
    NORMALIZATIONS,
)
from benchmarks.experiments.tuning import is_at_edge
from benchmarks.harness import pages
from benchmarks.harness.colours import LOOKS
from benchmarks.harness.figures import legend_below, panels
from benchmarks.harness.results import Content

EQUALITY = "in front of BatchNorm"
"""The part that compares trainings with and without weight normalization."""

# Rounding is 1e-16 of weights of size 1, and 30 steps amplify it.
_ROUNDING = 1e-12
# A control is far more than that.
_VISIBLE = 1e-3

_SUBJECTS = {
    "fixed gains": "weights, with norms fixed",
    "learned gains": "weights, with norms learned",
    "gains": "learned norms, from their start",
}
_CONTROLS = {
    "centered": "control: weights, with means removed",
    "without BatchNorm": "control: weights, without a BatchNorm",
}


class Row(NamedTuple):
    """A normalization and an optimizer.

    Attributes:
        name: of the normalization.
        optimizer: its name.
        validation: accuracies, of shape `(scales, rates, seeds)`.
        test: the same of the test part.
    """

    name: str
    optimizer: str
    validation: np.ndarray
    test: np.ndarray

    @property
    def label(self) -> str:
        """Name in tables."""
        return f"{NORMALIZATIONS[self.name].label}, {LABELS[self.optimizer]}"

    @property
    def is_invariant(self) -> bool:
        """True where no accuracy may depend on powers of two."""
        is_found = not NORMALIZATIONS[self.name].stated
        return is_found and self.optimizer == "psi_sgd"

    def is_constant(self) -> bool:
        """Tell whether accuracies are the same at every scale."""
        kinds = self.validation, self.test
        return all(np.array_equal(x, x[:1].repeat(len(x), 0)) for x in kinds)

    def choices(self) -> np.ndarray:
        """Return for each scale the index of the rate that is chosen there.

        Its mean validation accuracy is the highest; the lowest of several.
        """
        return self.validation.mean(2).argmax(1)

    def choice_at(self, scale: int) -> np.ndarray:
        """Return the index of the rate that one scale chooses, for each."""
        choices = self.choices()
        return np.full_like(choices, choices[scale])

    def accuracy(self, choices: np.ndarray) -> np.ndarray:
        """Return test accuracies in percent, of shape `(scales, seeds)`."""
        return 100 * self.test[np.arange(len(choices)), choices]


def rows(content: Content) -> Iterator[Row]:
    """Yield a row for each normalization and optimizer."""
    settings, parts = content["settings"], content["parts"]
    for name in settings["normalizations"]:
        for optimizer in LABELS:
            found = [
                parts[f"{name}/{optimizer}/{scale:g}"]
                for scale in settings["scales"]
            ]
            yield Row(
                name,
                optimizer,
                np.array([part["validation"] for part in found]),
                np.array([part["test"] for part in found]),
            )


def report(content: Content) -> str:
    """Return the settings and three tables."""
    settings, found = content["settings"], list(rows(content))
    scales = [f"x {scale:g}" for scale in settings["scales"]]
    once = [["rate tuned at scale 1", "rate", *scales]]
    each = [["rate tuned at each scale", *scales]]
    for row in found:
        at_each, at_one = row.choices(), row.choice_at(_one(settings))
        cells = (pages.spread(x, 1) for x in row.accuracy(at_one))
        once.append([row.label, _rate(settings, at_one[0]), *cells])
        pairs = zip(row.accuracy(at_each), at_each, strict=True)
        each.append(
            [
                row.label,
                *(f"{x.mean():.1f} ({_rate(settings, at)})" for x, at in pairs),
            ]
        )
    tables = (pages.table(x, right=True) for x in (once, each))
    return "\n\n".join([pages.settings(content), *tables, _equality(content)])


def _one(settings: dict[str, Any]) -> int:
    return settings["scales"].index(1.0)


def _rate(settings: dict[str, Any], index: int) -> str:
    """Return a rate, with a star at the edge of the grid."""
    rate = settings["rates"][index]
    return f"{rate:g}{'★' * is_at_edge(rate, settings['rates'])}"


def _equality(content: Content) -> str:
    part = content["parts"][EQUALITY]
    head = ["difference that weight normalization makes", "largest"]
    labels = _SUBJECTS | _CONTROLS
    shown = [[label, f"{part[key]:.1g}"] for key, label in labels.items()]
    return pages.table([head, *shown], right=True)


def faults(content: Content) -> list[str]:
    """Return the claims that do not hold.

    In front of BatchNorm weight normalization makes no difference but rounding,
    and the controls do. With psi_sgd, factors that are powers of two change no
    accuracy, to the bit, where groups were found.
    """
    part = content["parts"][EQUALITY]
    wrong = [x for key, x in _SUBJECTS.items() if part[key] > _ROUNDING]
    wrong += [x for key, x in _CONTROLS.items() if part[key] < _VISIBLE]
    exact = all(math.frexp(x)[0] == 0.5 for x in content["settings"]["scales"])
    return [f"{EQUALITY}, wrong difference of {x}." for x in wrong] + [
        f"{row.label}: accuracies depend on the scale."
        for row in rows(content)
        if exact and row.is_invariant and not row.is_constant()
    ]


def figures(content: Content) -> dict[str, Figure]:
    """Draw accuracy against scale; dotted with a rate tuned at each."""
    settings = content["settings"]
    drawn, [axes] = panels((1, len(LABELS)), 3.9, sharey=True)
    by_optimizer = dict(zip(LABELS, axes, strict=True))
    for optimizer, panel in by_optimizer.items():
        panel.set_xscale("log", base=2)
        panel.set(title=LABELS[optimizer], xlabel="scale of initial filters")
    for row in rows(content):
        _draw(by_optimizer[row.optimizer], row, settings)
    axes[0].set_ylabel(f"test accuracy on {settings['dataset']} (%)")
    legend_below(drawn, 2)
    return {"normalizations": drawn}


def _draw(axes: Any, row: Row, settings: dict[str, Any]) -> None:
    """Draw the two lines of a row."""
    look = LOOKS[list(NORMALIZATIONS).index(row.name)]
    label = NORMALIZATIONS[row.name].label
    at_one, at_each = row.choice_at(_one(settings)), row.choices()
    for choices, line in ((at_each, ":"), (at_one, "-")):
        mean = row.accuracy(choices).mean(1)
        options = {"linestyle": line, "label": label if line == "-" else None}
        axes.plot(settings["scales"], mean, **look, **options)
