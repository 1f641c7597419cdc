"""What the language experiment found: tables of losses, and their curves."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

import psi_optax
from benchmarks import pages
from benchmarks.experiments.language_methods import LABELS
from benchmarks.held_rate import held_steps
from benchmarks.recording import rms
from benchmarks.report import COLOURS, MARKERS

__all__ = ["figure", "held_rotation", "settling", "table", "tuned"]

INFINITE = float("inf")


def tuned(content: dict[str, Any]) -> tuple[float, float]:
    """AdamW's rate and decay of the lowest validation loss.

    Args:
        content: that of the results, at least of tuning.

    Returns:
        The rate and the decay.
    """
    losses = _tuning_losses(content)
    return min(losses, key=lambda point: losses[point])


def settling(content: dict[str, Any]) -> tuple[float, float]:
    """The same of those pairs at which AdamW comes to its equilibrium.

    That takes some 1 / (4 rate decay) steps, which have to be among those at
    the held rate.

    Args:
        content: as in `tuned`.

    Returns:
        The rate and the decay.
    """
    held = held_steps(content["settings"]["steps"])
    losses = {
        (rate, decay): loss
        for (rate, decay), loss in _tuning_losses(content).items()
        if 1 / (4 * rate * decay) <= held
    }
    return min(losses, key=lambda point: losses[point])


def _tuning_losses(content: dict[str, Any]) -> dict[Any, float]:
    settings = content["settings"]
    return {
        (rate, decay): _last(content["parts"][f"tuning/{rate:g}/{decay:g}"])
        for rate in settings["rates"]
        for decay in settings["decays"]
    }


def held_rotation(settings: dict[str, Any], part: dict[str, Any]) -> float:
    """The RMS rotation at the held rate, its first half not counted.

    Args:
        settings: those of the experiment.
        part: what was measured in a run.

    Returns:
        Radians a step.
    """
    chunk = settings["steps"] // settings["chunks"]
    held = held_steps(settings["steps"]) // chunk
    return float(rms(part["rotation"][held // 2 : held]))


def table(content: dict[str, Any]) -> str:
    """Which parameters have groups, losses by factor, and rotations.

    Args:
        content: that of the results.

    Returns:
        Markdown.
    """
    return "\n\n".join(
        [
            "The parameters whose groups are used:",
            f"```\n{content['parts']['groups']}\n```",
            _tuning(content),
            _losses(content),
            _matched(content),
        ]
    )


def figure(content: dict[str, Any]) -> Figure:
    """Draw validation losses over steps, and test losses over factors.

    Args:
        content: that of the results.

    Returns:
        A figure of two panels.
    """
    settings = content["settings"]
    steps = np.linspace(0, settings["steps"], settings["chunks"] + 1)[1:]
    drawn = Figure(figsize=(10, 4), layout="constrained")
    over_steps, over_factors = drawn.subplots(1, 2)
    for index, (name, label) in enumerate(LABELS.items()):
        style: dict[str, Any] = {
            "color": COLOURS[(1, 0, 7, 6)[index]],
            "label": label.replace("`", ""),
        }
        curves = [
            [np.nan if loss is None else loss for loss in part["validation"]]
            for part in _parts(content, name, 1.0)
        ]
        over_steps.plot(steps, np.mean(curves, 0), **style)
        losses = [_test(content, name, x) for x in settings["factors"]]
        over_factors.errorbar(
            settings["factors"],
            [np.mean(loss) for loss in losses],
            [_spread(loss) for loss in losses],
            marker=MARKERS[index],
            capsize=3,
            **style,
        )
    over_steps.set_xlabel("step")
    over_steps.set_ylabel("validation loss (nats a character)")
    over_steps.set_title("at the matched rotation", fontsize=10)
    # The first losses are those of a model that knows nothing.
    over_steps.set_ylim(top=_highest(content))
    over_factors.set_xscale("log", base=2)
    over_factors.set_xlabel("rotation, times the matched one")
    over_factors.set_ylabel("test loss (nats a character)")
    for axes in (over_steps, over_factors):
        axes.grid(alpha=0.3)
    over_steps.legend(fontsize="small")
    return drawn


def _highest(content: dict[str, Any]) -> float:
    """What AdamW has reached after three chunks or more."""
    [part, *_] = _parts(content, "adamw", 1.0)
    return float(part["validation"][min(2, len(part["validation"]) - 1)])


def _parts(content, name: str, factor: float) -> list[dict[str, Any]]:
    return [
        content["parts"][f"{name}/{factor:g}/{seed}"]
        for seed in range(content["settings"]["seeds"])
    ]


def _last(part: dict[str, Any]) -> float:
    loss = part["validation"][-1]
    return INFINITE if loss is None else loss


def _test(content, name: str, factor: float) -> np.ndarray:
    return _losses_of(_parts(content, name, factor))


def _losses_of(parts: list[dict[str, Any]]) -> np.ndarray:
    losses = [part["test"] for part in parts]
    return np.array([np.nan if loss is None else loss for loss in losses])


def _chosen(content, name: str) -> float:
    """The factor of the lowest validation loss."""
    return min(
        content["settings"]["factors"],
        key=lambda factor: np.mean(
            [_last(part) for part in _parts(content, name, factor)]
        ),
    )


def _spread(losses: np.ndarray) -> float:
    return float(losses.std(ddof=1))


def _cell(losses: np.ndarray) -> str:
    if not np.isfinite(losses).all():
        return "diverged"
    return f"{losses.mean():.3f} ± {_spread(losses):.3f}"


def _tuning(content: dict[str, Any]) -> str:
    settings = content["settings"]
    (rate, decay), (matched, settled) = tuned(content), settling(content)
    angle = float(
        psi_optax.dynamics.equilibrium_rotation(
            matched, settled, optimizer="adamw"
        )
    )

    def star(value: float, values: list[float]) -> str:
        edge = len(values) > 1 and value in (min(values), max(values))
        return "★" * edge

    trials = len(settings["rates"]) * len(settings["decays"])
    return (
        f"{settings['depth']} layers of width {settings['width']} with"
        f" {settings['heads']} heads, {settings['length']} characters;"
        f" {settings['steps']} steps of {settings['batch_size']} such pieces."
        f" AdamW, of {trials} pairs: learning rate"
        f" {rate:g}{star(rate, settings['rates'])}, weight decay"
        f" {decay:g}{star(decay, settings['decays'])} (a star marks the edge of"
        " the grid). Of those pairs at which it comes to its equilibrium within"
        f" the run, {matched:g} and {settled:g}; the rotation there is"
        f" {angle:.4f} radians a step, which is matched."
    )


def _losses(content: dict[str, Any]) -> str:
    settings = content["settings"]
    factors = settings["factors"]
    rows = [["rotation, times the matched one", *(f"{x:g}" for x in factors)]]
    for name, label in LABELS.items():
        chosen = _chosen(content, name)
        cells = []
        for factor in factors:
            cell = _cell(_test(content, name, factor))
            cells.append(f"**{cell}**" if factor == chosen else cell)
        rows.append([label, *cells])
    return (
        f"Test loss in nats a character, mean ± standard deviation of"
        f" {settings['seeds']} seeds; bold: what the validation loss would"
        f" choose:\n\n{pages.table(rows, right=True)}"
    )


def _matched(content: dict[str, Any]) -> str:
    settings = content["settings"]
    baseline = _losses_of(
        [content["parts"][f"tuned/{seed}"] for seed in range(settings["seeds"])]
    )
    rows = [
        [
            "",
            "rotation seen",
            "test loss, matched",
            "less AdamW's",
            "at its best factor",
            "rotation seen",
            "less tuned AdamW's",
        ],
        ["AdamW, tuned", "", "", "", _cell(baseline), "", ""],
    ]
    for name, label in LABELS.items():
        matched = _test(content, name, 1.0)
        chosen = _chosen(content, name)
        best = _test(content, name, chosen)
        adamw = _test(content, "adamw", 1.0)
        rows.append(
            [
                label,
                _seen(content, name, 1.0),
                _cell(matched),
                _cell(matched - adamw),
                _cell(best),
                _seen(content, name, chosen),
                _cell(best - baseline),
            ]
        )
    return (
        "At the matched rotation, and at the factor that the validation loss"
        " chooses; differences are taken seed by seed, and rotations seen while"
        " the rate is held, after its first half. *AdamW, tuned* is that of the"
        f" best pair of all:\n\n{pages.table(rows, right=True)}"
    )


def _seen(content, name: str, factor: float) -> str:
    """The rotation at the held rate, mean over seeds."""
    parts = _parts(content, name, factor)
    angles = [held_rotation(content["settings"], part) for part in parts]
    return f"{np.mean(angles):.4f}"
