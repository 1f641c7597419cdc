"""Tables of losses and rotations, by method and factor."""

from typing import Any

import numpy as np

from benchmarks.experiments.language.findings import (
    best_factor,
    held_rotation,
    runs,
    settling,
    test_losses,
    tuned,
)
from benchmarks.experiments.language.methods import LABELS
from benchmarks.harness import pages
from benchmarks.harness.results import Content
from psi_optax.dynamics import equilibrium_rotation

__all__ = ["report"]


def report(content: Content) -> str:
    """Return the groups, the tuning, losses by factor, and rotations."""
    return "\n\n".join(
        [
            "The parameters whose groups are used:",
            f"```\n{content['parts']['groups']}\n```",
            _tuning(content),
            _by_factor(content),
            _matched(content),
        ]
    )


def _tuning(content: Content) -> str:
    settings = content["settings"]
    rates, decays = settings["rates"], settings["decays"]
    (rate, decay), matched = tuned(content), settling(content)
    angle = float(equilibrium_rotation(*matched, optimizer="adamw"))
    return (
        f"{settings['depth']} layers of width {settings['width']} with"
        f" {settings['heads']} heads, {settings['length']} characters;"
        f" {settings['steps']} steps of {settings['batch_size']} such pieces."
        f" AdamW, of {len(rates) * len(decays)} pairs: learning rate"
        f" {_starred(rate, rates)}, weight decay {_starred(decay, decays)} (a"
        " star marks the edge of the grid). Of those pairs at which it comes to"
        f" its equilibrium within the run, {matched[0]:g} and {matched[1]:g};"
        f" the rotation there is {angle:.4f} radians a step, which is matched."
    )


def _starred(value: float, values: list[float]) -> str:
    edge = len(values) > 1 and value in (min(values), max(values))
    return f"{value:g}" + "★" * edge


def _by_factor(content: Content) -> str:
    settings = content["settings"]
    factors = settings["factors"]
    rows = [["rotation, times the matched one", *(f"{x:g}" for x in factors)]]
    for name, label in LABELS.items():
        best = best_factor(content, name)
        cells = [_cell(test_losses(runs(content, name, x))) for x in factors]
        bold = [
            f"**{cell}**" if factor == best else cell
            for factor, cell in zip(factors, cells, strict=True)
        ]
        rows.append([label, *bold])
    return (
        f"Test loss in nats a character, mean ± standard deviation of"
        f" {settings['seeds']} seeds; bold: the choice of the validation"
        f" loss:\n\n{pages.table(rows, right=True)}"
    )


def _matched(content: Content) -> str:
    settings, parts = content["settings"], content["parts"]
    seeds = range(settings["seeds"])
    baseline = test_losses([parts[f"tuned/{seed}"] for seed in seeds])
    adamw = test_losses(runs(content, "adamw", 1.0))
    columns = ("rotation seen", "test loss, matched", "less AdamW's")
    best_columns = ("at its best factor", "rotation seen", "less tuned AdamW's")
    rows = [
        ["", *columns, *best_columns],
        ["AdamW, tuned", "", "", "", _cell(baseline), "", ""],
    ]
    for name, label in LABELS.items():
        matched = runs(content, name, 1.0)
        chosen = runs(content, name, best_factor(content, name))
        losses, best = test_losses(matched), test_losses(chosen)
        cells = _seen(settings, matched), _cell(losses), _cell(losses - adamw)
        row = [label, *cells, _cell(best), _seen(settings, chosen)]
        rows.append([*row, _cell(best - baseline)])
    return (
        "At the matched rotation, and at the factor that the validation loss"
        " chooses; differences are taken seed by seed, and rotations seen while"
        " the rate is held, after its first half. *AdamW, tuned* is that of the"
        f" best pair of all:\n\n{pages.table(rows, right=True)}"
    )


def _cell(losses: np.ndarray) -> str:
    if not np.isfinite(losses).all():
        return "diverged"
    return f"{losses.mean():.3f} ± {losses.std(ddof=1):.3f}"


def _seen(settings: dict[str, Any], parts: list[dict[str, Any]]) -> str:
    """Return the mean rotation at the held rate."""
    return f"{np.mean([held_rotation(settings, part) for part in parts]):.4f}"
