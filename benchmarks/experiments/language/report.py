"""Tables of losses and rotations by method and factor, and their figure."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.experiments.language import findings
from benchmarks.experiments.language.methods import LABELS
from benchmarks.harness import pages
from benchmarks.harness.colours import COLOURS, MARKERS
from benchmarks.harness.figures import styled
from benchmarks.harness.results import Content
from psi_optax.dynamics import equilibrium_rotation


def report(content: Content) -> str:
    """Return the groups, the tuning, losses by factor, and rotations."""
    groups = f"```\n{content['parts']['groups']}\n```"
    tables = _by_factor(content), _matched(content)
    return "\n\n".join([groups, _tuning(content), *tables])


def _tuning(content: Content) -> str:
    settings = content["settings"]
    rates, decays = settings["rates"], settings["decays"]
    rate, decay = findings.best_pair(content)
    matched = findings.settling(content)
    angle = float(equilibrium_rotation(*matched, optimizer="adamw"))
    return (
        f"{settings['depth']} layers of width {settings['width']} with"
        f" {settings['heads']} heads, {settings['length']} characters;"
        f" {settings['steps']} steps of {settings['batch_size']} such pieces."
        f" {settings['seeds']} seeds. AdamW, of {len(rates) * len(decays)}"
        f" pairs: learning rate {_starred(rate, rates)}, weight decay"
        f" {_starred(decay, decays)}. Of those at which it settles,"
        f" {matched[0]:g} and {matched[1]:g}; the rotation there is"
        f" {angle:.4f} radians a step."
    )


def _starred(value: float, values: list[float]) -> str:
    edge = len(values) > 1 and value in (min(values), max(values))
    return f"{value:g}" + "★" * edge


def _by_factor(content: Content) -> str:
    factors = content["settings"]["factors"]
    rows = [["rotation, times the matched one", *(f"{x:g}" for x in factors)]]
    for name, label in LABELS.items():
        cells = {x: _cell(_losses(content, name, x)) for x in factors}
        best = findings.best_factor(content, name)
        cells[best] = f"**{cells[best]}**"
        rows.append([label, *cells.values()])
    return pages.table(rows, right=True)


def _matched(content: Content) -> str:
    seeds = range(content["settings"]["seeds"])
    tuned = [content["parts"][f"tuned/{seed}"] for seed in seeds]
    baseline = findings.losses(tuned)
    adamw = _losses(content, "adamw", 1.0)
    rows = [
        [
            *("", "rotation seen", "test loss, matched", "less AdamW's"),
            *("at its best factor", "rotation seen", "less tuned AdamW's"),
        ],
        ["AdamW, tuned", "", "", "", _cell(baseline), "", ""],
    ]
    for name, label in LABELS.items():
        row, best = [label], findings.best_factor(content, name)
        losses, chosen = (_losses(content, name, x) for x in (1.0, best))
        row += _seen(content, name, 1.0), _cell(losses), _cell(losses - adamw)
        row += _cell(chosen), _seen(content, name, best)
        rows.append([*row, _cell(chosen - baseline)])
    return pages.table(rows, right=True)


def _losses(content: Content, name: str, factor: float) -> np.ndarray:
    return findings.losses(findings.runs(content, name, factor))


def _cell(losses: np.ndarray) -> str:
    return pages.spread(losses, 3)


def _seen(content: Content, name: str, factor: float) -> str:
    """Return the mean rotation at the held rate."""
    runs, settings = findings.runs(content, name, factor), content["settings"]
    angles = [findings.held_rotation(settings, run) for run in runs]
    return f"{np.mean(angles):.4f}"


@styled
def figures(content: Content) -> dict[str, Figure]:
    """Draw validation losses over steps, and test losses over factors."""
    drawn = Figure(figsize=(10, 4))
    over_steps, over_factors = drawn.subplots(1, 2)
    colours = (COLOURS[index] for index in (1, 0, 7, 6))
    drawn_as = zip(LABELS.items(), colours, MARKERS, strict=False)
    for (name, label), colour, marker in drawn_as:
        style = {"color": colour, "label": label.replace("`", "")}
        _draw_steps(over_steps, content, name, **style)
        _draw_factors(over_factors, content, name, marker=marker, **style)
    # The losses at the beginning, before AdamW's third chunk, are cut off.
    [first, *_] = findings.runs(content, "adamw")
    over_steps.set_ylim(top=first["validation"][:3][-1])
    over_steps.set(
        title="at the matched rotation",
        xlabel="step",
        ylabel="validation loss (nats a character)",
    )
    over_steps.legend()
    over_factors.set_xscale("log", base=2)
    over_factors.set(
        xlabel="rotation, times the matched one",
        ylabel="test loss (nats a character)",
    )
    return {"language": drawn}


def _draw_steps(axes: Axes, content: Content, name: str, **style: Any) -> None:
    """Draw validation losses at the matched rotation, means of seeds."""
    settings, runs = content["settings"], findings.runs(content, name)
    steps = np.linspace(0, settings["steps"], settings["chunks"] + 1)[1:]
    curves = np.array([run["validation"] for run in runs], float)
    axes.plot(steps, curves.mean(0), **style)


def _draw_factors(axes: Axes, content: Content, name: str, **style: Any):
    """Draw means of test losses, and standard deviations."""
    factors = content["settings"]["factors"]
    losses = np.array([_losses(content, name, x) for x in factors])
    deviations = losses.std(1, ddof=1)
    axes.errorbar(factors, losses.mean(1), deviations, capsize=3, **style)
