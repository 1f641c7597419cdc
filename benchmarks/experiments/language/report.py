"""Tables of losses and rotations by method and factor, and their figure."""

import numpy as np
from matplotlib.figure import Figure

from benchmarks.experiments.language import findings
from benchmarks.experiments.language.methods import LABELS
from benchmarks.experiments.tuning import is_at_edge
from benchmarks.harness import pages
from benchmarks.harness.colours import COLOURS, MARKERS
from benchmarks.harness.figures import styled
from benchmarks.harness.results import Content
from psi_optax.dynamics import equilibrium_rotation


def report(content: Content) -> str:
    """Return the groups, the tuning, losses by factor, and rotations."""
    settings, pair = content["settings"], findings.best_pair(content)
    grids = settings["rates"], settings["decays"]
    rate, decay = (
        f"{value:g}{'★' * is_at_edge(value, grid)}"
        for value, grid in zip(pair, grids, strict=True)
    )
    matched = findings.settling(content)
    angle = float(equilibrium_rotation(*matched, optimizer="adamw"))
    tuned = (
        f"Tuned: learning rate {rate}, weight decay {decay}. Of the pairs at"
        f" which AdamW settles, {matched[0]:g} and {matched[1]:g}; the rotation"
        f" there is {angle:.4f} radians a step."
    )
    groups = f"```\n{content['parts']['groups']}\n```"
    tables = _by_factor(content), _matched(content)
    return "\n\n".join([groups, pages.settings(content), tuned, *tables])


def _by_factor(content):
    factors = content["settings"]["factors"]
    rows = [["rotation, times the matched one", *(f"{x:g}" for x in factors)]]
    for name, label in LABELS.items():
        cells = {x: pages.spread(_losses(content, name, x), 3) for x in factors}
        best = findings.best_factor(content, name)
        cells[best] = f"**{cells[best]}**"
        rows.append([label, *cells.values()])
    return pages.table(rows, right=True)


def _matched(content):
    seeds = range(content["settings"]["seeds"])
    tuned = findings.losses([content["parts"][f"tuned/{x}"] for x in seeds])
    adamw = _losses(content, "adamw", 1.0)
    rows = [
        [
            *("", "rotation seen", "test loss, matched", "less AdamW's"),
            *("at its best factor", "rotation seen", "less tuned AdamW's"),
        ],
        ["AdamW, tuned", "", "", "", pages.spread(tuned, 3), "", ""],
    ]
    for name, label in LABELS.items():
        best = findings.best_factor(content, name)
        losses, chosen = (_losses(content, name, x) for x in (1.0, best))
        found = losses, losses - adamw, chosen, chosen - tuned
        cells = [pages.spread(x, 3) for x in found]
        cells.insert(0, _seen(content, name, 1.0))
        cells.insert(4, _seen(content, name, best))
        rows.append([label, *cells])
    return pages.table(rows, right=True)


def _losses(content, name, factor):
    return findings.losses(findings.runs(content, name, factor))


def _seen(content, name, factor):
    """Return the mean rotation at the held rate."""
    runs, settings = findings.runs(content, name, factor), content["settings"]
    angles = [findings.held_rotation(settings, run) for run in runs]
    return f"{np.mean(angles):.4f}"


@styled
def figures(content: Content) -> dict[str, Figure]:
    """Draw validation losses over steps, and test losses over factors."""
    settings, drawn = content["settings"], Figure(figsize=(10, 4))
    factors, chunks = settings["factors"], settings["chunks"]
    steps = np.linspace(0, settings["steps"], chunks + 1)[1:]
    over_steps, over_factors = drawn.subplots(1, 2)
    colours = (COLOURS[index] for index in (1, 0, 7, 6))
    styles = zip(LABELS.items(), colours, MARKERS, strict=False)
    for (name, label), colour, marker in styles:
        style = {"color": colour, "label": label.replace("`", "")}
        curves = [x["validation"] for x in findings.runs(content, name)]
        over_steps.plot(steps, np.array(curves, float).mean(0), **style)
        losses = np.array([_losses(content, name, x) for x in factors])
        style |= {"yerr": losses.std(1, ddof=1), "marker": marker}
        over_factors.errorbar(factors, losses.mean(1), capsize=3, **style)
    # The losses at the beginning, before AdamW's third chunk, are cut off.
    [first, *_] = findings.runs(content, "adamw")
    over_steps.set_ylim(top=first["validation"][:3][-1])
    over_steps.set(title="at the matched rotation", xlabel="step")
    over_steps.set_ylabel("validation loss (nats a character)")
    over_steps.legend()
    over_factors.set_xscale("log", base=2)
    over_factors.set_xlabel("rotation, times the matched one")
    over_factors.set_ylabel("test loss (nats a character)")
    return {"language": drawn}
