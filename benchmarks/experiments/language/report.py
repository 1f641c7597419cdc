"""Tables of losses and rotations by method and factor, and their figure."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.experiments.language import findings
from benchmarks.experiments.language.methods import LABELS
from benchmarks.harness import pages
from benchmarks.harness.colours import COLOURS, MARKERS
from benchmarks.harness.results import Content
from psi_optax.dynamics import equilibrium_rotation


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
    (rate, decay) = findings.tuned(content)
    matched = findings.settling(content)
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
    factors = content["settings"]["factors"]
    rows = [["rotation, times the matched one", *(f"{x:g}" for x in factors)]]
    for name, label in LABELS.items():
        cells = {x: _cell(_losses(content, name, x)) for x in factors}
        best = findings.best_factor(content, name)
        cells[best] = f"**{cells[best]}**"
        rows.append([label, *cells.values()])
    return (
        f"Test loss in nats a character, mean ± standard deviation of"
        f" {content['settings']['seeds']} seeds; bold: the choice of the"
        f" validation loss:\n\n{pages.table(rows, right=True)}"
    )


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
        row = [label]
        best = findings.best_factor(content, name)
        losses, chosen = (_losses(content, name, x) for x in (1.0, best))
        row += _seen(content, name, 1.0), _cell(losses), _cell(losses - adamw)
        row += _cell(chosen), _seen(content, name, best)
        rows.append([*row, _cell(chosen - baseline)])
    return (
        "At the matched rotation, and at the factor that the validation loss"
        " chooses; differences are taken seed by seed, and rotations seen while"
        " the rate is held, after its first half. *AdamW, tuned* is that of the"
        f" best pair of all:\n\n{pages.table(rows, right=True)}"
    )


def _losses(content: Content, name: str, factor: float) -> np.ndarray:
    return findings.losses(findings.runs(content, name, factor))


def _cell(losses: np.ndarray) -> str:
    if not np.isfinite(losses).all():
        return "diverged"
    return f"{losses.mean():.3f} ± {losses.std(ddof=1):.3f}"


def _seen(content: Content, name: str, factor: float) -> str:
    """Return the mean rotation at the held rate."""
    runs, settings = findings.runs(content, name, factor), content["settings"]
    angles = [findings.held_rotation(settings, run) for run in runs]
    return f"{np.mean(angles):.4f}"


def figures(content: Content) -> dict[str, Figure]:
    """Draw validation losses over steps, and test losses over factors."""
    drawn = Figure(figsize=(10, 4), layout="constrained")
    over_steps, over_factors = drawn.subplots(1, 2)
    for index, (name, label) in enumerate(LABELS.items()):
        style = {
            "color": COLOURS[(1, 0, 7, 6)[index]],
            "label": label.replace("`", ""),
        }
        _draw_steps(over_steps, content, name, **style)
        marker = MARKERS[index]
        _draw_factors(over_factors, content, name, marker=marker, **style)
    over_steps.set(xlabel="step", ylabel="validation loss (nats a character)")
    over_steps.set_title("at the matched rotation", fontsize=10)
    # The losses at the beginning, before AdamW's third chunk, are cut off.
    [first, *_] = findings.runs(content, "adamw", 1.0)
    over_steps.set_ylim(top=first["validation"][:3][-1])
    over_factors.set_xscale("log", base=2)
    over_factors.set_xlabel("rotation, times the matched one")
    over_factors.set_ylabel("test loss (nats a character)")
    over_steps.legend(fontsize="small")
    for axes in (over_steps, over_factors):
        axes.grid(alpha=0.3)
    return {"language": drawn}


def _draw_steps(axes: Axes, content: Content, name: str, **style: Any) -> None:
    """Draw validation losses at the matched rotation, means of seeds."""
    settings, runs = content["settings"], findings.runs(content, name, 1.0)
    steps = np.linspace(0, settings["steps"], settings["chunks"] + 1)[1:]
    curves = np.array([run["validation"] for run in runs], float)
    axes.plot(steps, curves.mean(0), **style)


def _draw_factors(axes: Axes, content: Content, name: str, **style: Any):
    """Draw means of test losses, and standard deviations."""
    factors = content["settings"]["factors"]
    losses = np.array([_losses(content, name, x) for x in factors])
    deviations = losses.std(1, ddof=1)
    axes.errorbar(factors, losses.mean(1), deviations, capsize=3, **style)
