"""Tables, figure and claims of the matching experiment."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.experiments.matched import LABELS
from benchmarks.experiments.rotations import rms
from benchmarks.experiments.tuning import tuned_to
from benchmarks.harness import pages
from benchmarks.harness.colours import BLACK, DARK_GREY, in_order, look
from benchmarks.harness.figures import SPARSE, legend_below, panels
from benchmarks.harness.results import Content

TOLERANCE = 0.05
"""The largest relative error of matched rotations at the held rate."""

Parts = dict[str, Any]


def rotations(schedule: Parts, curve: list[float]) -> dict[str, float]:
    """Return RMS rotations a step, from those of every step."""
    steps, held = schedule["steps"], schedule["held"]
    stretches = {
        "rate held": slice(schedule["transient"], held),
        "rate falling": slice(held, steps),
        "last tenth": slice(steps - max(1, steps // 10), steps),
    }
    return {x: float(rms(np.array(curve[s]))) for x, s in stretches.items()}


def _percent(parts: Parts) -> dict[str, np.ndarray]:
    """Return the accuracy of each seed, by method."""
    return {name: 100 * np.array(parts[name]["accuracy"]) for name in LABELS}


def faults(content: Content) -> list[str]:
    """Return the claims that do not hold.

    At the held rate the matched methods turn as SGD does, and SGD without decay
    does not; the mean accuracies of the matched ones are SGD's to within its
    standard deviation over seeds. One or two pilots do not suffice for this.
    """
    if content["settings"]["pilots"] < 3:
        return []
    parts, found = content["parts"], []
    held = {
        name: rotations(parts["schedule"], parts[name]["curve"])["rate held"]
        for name in LABELS
    }
    for name, label in LABELS.items():
        quotient = held[name] / held["sgd_decay"]
        if (abs(quotient - 1) <= TOLERANCE) != (name != "sgd"):
            found.append(f"{label} turns by {quotient:.3f} of SGD's rotation.")
    percent = _percent(parts)
    spread = percent["sgd_decay"].std(ddof=1)
    for name in "psi_sgd", "rotational":
        mean = (percent[name] - percent["sgd_decay"]).mean()
        if abs(mean) > spread:
            found.append(
                f"{LABELS[name]}: accuracy differs by {mean:+.2f} %, and SGD's"
                f" spreads by {spread:.2f} %."
            )
    return found


def report(content: Content) -> str:
    """Return the tuned values, and both tables."""
    parts, versions = content["parts"], content["versions"]
    tuning, schedule = parts["tuning"], parts["schedule"]
    about = (
        f"Tuned of {len(tuning['trials'])} pairs:"
        f" {tuned_to(tuning, ('learning rate ', 'weight decay '))}. The rate is"
        f" held for {schedule['held']} of {schedule['steps']} steps, of which"
        f" the first {schedule['transient']} are not counted."
    )
    return "\n\n".join(
        [
            *map(pages.wrap, (pages.settings(content), about)),
            _pilots(parts["pilots"]),
            _comparison(parts),
            f"JAX {versions['jax']}, optax {versions['optax']}.",
        ]
    )


def _pilots(pilots: list[dict[str, float]]) -> str:
    rows = [["pilot", "`gradient_norm`", "rotation", "wanted", "corrected to"]]
    for number, pilot in enumerate(pilots, 1):
        norm, turned, spread, *rest = (f"{x:.4f}" for x in pilot.values())
        rows.append([str(number), norm, f"{turned} ± {spread}", *rest])
    return pages.table(rows, right=True)


def _comparison(parts: Parts) -> str:
    """Return a column for the prediction of SGD, and for each method."""
    curves = [parts["schedule"]["predicted"]]
    curves += [parts[name]["curve"] for name in LABELS]
    columns = [rotations(parts["schedule"], curve) for curve in curves]
    rows = [["", "predicted", *LABELS.values()]]
    for stretch in columns[0]:
        angles = [column[stretch] for column in columns]
        rows.append([f"rotation, {stretch}", *(f"{x:.4f}" for x in angles)])
        if stretch == "rate held":
            filters = [parts[name]["filters"] for name in LABELS]
            ranges = [f"{low:.4f} to {high:.4f}" for low, high in filters]
            rows.append(["- of single filters", "", *ranges])
        rows.append(["- of SGD's", *(f"{x / angles[1]:.3f}" for x in angles)])
    sgd, *others = accuracies = [*_percent(parts).values()]
    shown = [pages.spread(x, 2) for x in accuracies]
    paired = [pages.spread(x - sgd, 2) for x in others]
    rows.append(["accuracy, %", "", *shown])
    return pages.table([*rows, ["- less SGD's", "", "", *paired]], right=True)


def figures(content: Content) -> dict[str, Figure]:
    """Draw the rotation at every step: measured ones, and the prediction."""
    parts, schedule = content["parts"], content["parts"]["schedule"]
    drawn, [[axes]] = panels((1, 1), 3.8)
    for name in in_order(LABELS):
        label = LABELS[name].replace("`", "")
        style = {**look(name), **SPARSE, "label": label}
        axes.plot(parts[name]["curve"], lw=1.5, **style)
    label = "SGD, weight decay, as predicted"
    axes.plot(schedule["predicted"], "--", color=BLACK, label=label)
    # Grey: the transient. Dotted: where the rate begins to fall.
    axes.axvspan(0, schedule["transient"], color=DARK_GREY, alpha=0.15, lw=0)
    axes.axvline(schedule["held"], color=DARK_GREY, lw=1.5, ls=":")
    axes.set(xlabel="step", ylabel="RMS rotation (radians / step)")
    axes.semilogy()
    axes.set_ylim(bottom=1e-4)
    legend_below(drawn, 3)
    return {"matching-weight-decay": drawn}
