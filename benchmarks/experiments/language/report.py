"""Tables of losses and rotations by method and factor, and their figure."""

import itertools
import math

import numpy as np
from matplotlib.figure import Figure

from benchmarks.experiments.held_rate import held_rotation, held_steps
from benchmarks.experiments.tuning import is_at_edge
from benchmarks.harness import pages
from benchmarks.harness.colours import in_order, look
from benchmarks.harness.figures import legend_below, panels
from benchmarks.harness.files import InputError
from benchmarks.harness.results import Content
from psi_optax.dynamics import equilibrium_rotation

LABELS = {
    "adamw": "AdamW",
    "adamh": "`adamh`",
    "rotational": "`rotational`, Adam inside",
    "psi_adam": "`psi_adam`",
}
"""The methods that are compared, by the names that `make` takes."""


def best_pair(content: Content, held: float = math.inf) -> tuple[float, float]:
    """Return AdamW's rate and decay of the lowest validation loss.

    Pairs count at which it settles within some steps: in 1 / (4 rate decay).
    """
    settings, parts = content["settings"], content["parts"]
    pairs = itertools.product(settings["rates"], settings["decays"])
    losses = {
        (rate, decay): _last(parts[f"tuning/{rate:g}/{decay:g}"])
        for rate, decay in pairs
        if 1 / (4 * rate * decay) <= held
    }
    if not losses:
        raise InputError(
            f"AdamW settles at no pair of --rates and --decays within {held}"
            " steps, for which rates are held: choose more --steps."
        )
    return min(losses, key=losses.__getitem__)


def settling(content: Content) -> tuple[float, float]:
    """Return the best pair at which AdamW settles at the held rate."""
    return best_pair(content, held_steps(content["settings"]["steps"]))


def _last(part):
    loss = part["validation"][-1]
    return np.inf if loss is None else loss


def runs(content: Content, name: str, factor: float = 1.0) -> list[dict]:
    """Return the runs of a method at a factor, by seed."""
    seeds = range(content["settings"]["seeds"])
    return [content["parts"][f"{name}/{factor:g}/{seed}"] for seed in seeds]


def final_losses(parts: list[dict]) -> np.ndarray:
    """Return the test losses of runs, NaN where they diverged."""
    return np.array([part["test"] for part in parts], float)


def best_factor(content: Content, name: str) -> float:
    """Return the factor of the lowest validation loss of a method."""

    def loss(factor):
        return np.mean([_last(part) for part in runs(content, name, factor)])

    return min(content["settings"]["factors"], key=loss)


def report(content: Content) -> str:
    """Return the groups, the tuning, losses by factor, and rotations."""
    settings, pair = content["settings"], best_pair(content)
    grids = settings["rates"], settings["decays"]
    rate, decay = (
        f"{value:g}{'★' * is_at_edge(value, grid)}"
        for value, grid in zip(pair, grids, strict=True)
    )
    matched = settling(content)
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
        best = best_factor(content, name)
        cells[best] = f"**{cells[best]}**"
        rows.append([label, *cells.values()])
    return pages.table(rows, right=True)


def _matched(content):
    seeds = range(content["settings"]["seeds"])
    tuned = final_losses([content["parts"][f"tuned/{x}"] for x in seeds])
    adamw = _losses(content, "adamw", 1.0)
    rows = [
        [
            *("", "rotation seen", "test loss, matched", "less AdamW's"),
            *("at its best factor", "rotation seen", "less tuned AdamW's"),
        ],
        ["AdamW, tuned", "", "", "", pages.spread(tuned, 3), "", ""],
    ]
    for name, label in LABELS.items():
        best = best_factor(content, name)
        losses, chosen = (_losses(content, name, x) for x in (1.0, best))
        found = losses, losses - adamw, chosen, chosen - tuned
        *cells, last = (pages.spread(x, 3) for x in found)
        seen, at_best = (_seen(content, name, x) for x in (1.0, best))
        rows.append([label, seen, *cells, at_best, last])
    return pages.table(rows, right=True)


def _losses(content, name, factor):
    return final_losses(runs(content, name, factor))


def _seen(content, name, factor):
    """Return the mean rotation at the held rate."""
    found, settings = runs(content, name, factor), content["settings"]
    return f"{np.mean([held_rotation(settings, run) for run in found]):.4f}"


def figures(content: Content) -> dict[str, Figure]:
    """Draw validation losses over steps, and test losses over factors."""
    settings = content["settings"]
    factors, chunks = settings["factors"], settings["chunks"]
    steps = np.linspace(0, settings["steps"], chunks + 1)[1:]
    drawn, [[over_steps, over_factors]] = panels((1, 2), 3.2)
    for name in in_order(LABELS):
        style = {**look(name), "label": LABELS[name].replace("`", "")}
        curves = [x["validation"] for x in runs(content, name)]
        mean = np.array(curves, float).mean(0)
        over_steps.plot(steps, mean, markevery=2, **style)
        losses = np.array([_losses(content, name, x) for x in factors])
        error = {"yerr": losses.std(1, ddof=1), "capsize": 3}
        over_factors.errorbar(factors, losses.mean(1), **error, **style)
    # The losses at the beginning, before AdamW's third chunk, are cut off.
    [first, *_] = runs(content, "adamw")
    over_steps.set_ylim(top=first["validation"][:3][-1])
    over_steps.set(title="at the matched rotation", xlabel="step")
    over_steps.set_ylabel("validation loss (nats / character)")
    over_factors.set_xscale("log", base=2)
    over_factors.set_xlabel("rotation, times the matched one")
    over_factors.set_ylabel("test loss (nats / character)")
    legend_below(drawn, 4)
    return {"language": drawn}
