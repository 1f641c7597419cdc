"""What the matching experiment found: tables, a figure, and what is wrong."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks import pages
from benchmarks.recording import rms
from benchmarks.report import COLOURS

__all__ = ["difference", "faults", "figure", "rotations", "section"]

TOLERANCE = 0.05
"""How far matched rotations may be off at the held rate, relative."""

MATCHED = ("psi_sgd", "rotational")


def rotations(results: dict[str, Any], curve: list[float]) -> dict[str, float]:
    """The RMS rotation of each part of a run.

    Args:
        results: what `benchmarks.matching.run` returns.
        curve: the RMS rotation of every step.

    Returns:
        Radians a step: while the rate is held, without the transient; while it
        falls; and of the last tenth of all steps.
    """
    steps, held = results["steps"], results["held"]
    parts = {
        "rate held": slice(results["transient"], held),
        "rate falling": slice(held, steps),
        "last tenth": slice(steps - max(1, steps // 10), steps),
    }
    return {
        name: float(rms(np.asarray(curve[part])))
        for name, part in parts.items()
    }


def difference(results: dict[str, Any], name: str) -> np.ndarray:
    """The accuracy of each seed, less that of SGD with decay, in percent."""
    methods = results["methods"]
    ours, theirs = methods[name]["accuracy"], methods["sgd_decay"]["accuracy"]
    return 100 * (np.array(ours) - np.array(theirs))


def faults(results: dict[str, Any]) -> list[str]:
    """What is not as it should be, in words.

    Args:
        results: what `benchmarks.matching.run` returns.

    Returns:
        Nothing if, at the held rate, both matched methods turn as SGD does and
        SGD without decay does not; and the accuracies of the matched ones are
        SGD's to within its standard deviation over seeds.
    """
    found = []
    for name, quotient in _quotients(results, "rate held").items():
        label = results["methods"][name]["label"]
        near = abs(quotient - 1) <= TOLERANCE
        if near != (name != "sgd"):
            found.append(f"{label} turns by {quotient:.3f} of SGD's rotation.")
    spread = 100 * np.std(results["methods"]["sgd_decay"]["accuracy"], ddof=1)
    for name in MATCHED:
        mean = difference(results, name).mean()
        if abs(mean) > spread:
            found.append(
                f"{results['methods'][name]['label']}: accuracy differs by "
                f"{mean:+.2f} %, and SGD's spreads by {spread:.2f} %."
            )
    return found


def _quotients(results: dict[str, Any], part: str) -> dict[str, float]:
    """Rotations of each method, of that of SGD with decay."""
    found = {
        name: rotations(results, method["curve"])[part]
        for name, method in results["methods"].items()
    }
    return {name: angle / found["sgd_decay"] for name, angle in found.items()}


def section(results: dict[str, Any]) -> str:
    """What goes between the markers: what was tuned, and both tables."""
    chosen, tuning = results["tuning"]["chosen"], results["tuning"]
    edge = " and ".join(tuning["at_edge"]).replace("_", " ")
    about = (
        f"Tuned of {len(tuning['trials'])} pairs: learning rate"
        f" {chosen['learning_rate']:g}, weight decay"
        f" {chosen['weight_decay']:g}{f' ({edge} at the edge)' * bool(edge)}."
        f" {results['steps']} steps of {results['batch_size']} examples, of"
        f" which the first {results['held']} are at the held rate, and the"
        f" first {results['transient']} not counted. {results['seeds']} seeds."
    )
    versions = results["versions"]
    made = f"JAX {versions['jax']}, optax {versions['optax']}."
    return "\n\n".join([about, _pilots(results), _comparison(results), made])


def _pilots(results: dict[str, Any]) -> str:
    rows = [["pilot", "`gradient_norm`", "rotation", "wanted", "corrected to"]]
    for index, pilot in enumerate(results["pilots"]):
        rows.append(
            [
                str(index + 1),
                f"{pilot['gradient_norm']:.4f}",
                f"{pilot['rotation']:.4f} ± {pilot['spread']:.4f}",
                f"{pilot['wanted']:.4f}",
                f"{pilot['corrected']:.4f}",
            ]
        )
    return pages.table(rows, right=True)


def _comparison(results: dict[str, Any]) -> str:
    """A column for what is predicted of SGD, and for each method."""
    methods = results["methods"].values()
    columns = [
        rotations(results, curve)
        for curve in (results["predicted"], *(m["curve"] for m in methods))
    ]
    rows = [["", "predicted", *(method["label"] for method in methods)]]
    for part in columns[0]:
        angles = [column[part] for column in columns]
        rows.append([f"rotation, {part}", *(f"{x:.4f}" for x in angles)])
        if part == "rate held":
            filters = [_range(method["filters"]) for method in methods]
            rows.append(["- of single filters", "", *filters])
        rows.append(["- of SGD's", *(f"{x / angles[1]:.3f}" for x in angles)])
    accuracies = [100 * np.array(method["accuracy"]) for method in methods]
    rows.append(["accuracy, %", "", *map(_spread, accuracies)])
    paired = [difference(results, name) for name in results["methods"]]
    rows.append(["- less SGD's", "", "", *map(_spread, paired[1:])])
    return pages.table(rows, right=True)


def _range(quantiles: list[float]) -> str:
    return " to ".join(f"{x:.4f}" for x in quantiles)


def _spread(values: np.ndarray) -> str:
    """Mean and standard deviation.

    Examples:
        >>> _spread(np.array([1.0, 2.0]))
        '1.50 ± 0.71'
    """
    return f"{values.mean():.2f} ± {values.std(ddof=1):.2f}"


def figure(results: dict[str, Any]) -> Figure:
    """Draw the rotation at every step.

    Args:
        results: what `benchmarks.matching.run` returns.

    Returns:
        A figure with a line for each method, and one for what is predicted.
    """
    drawn = Figure(figsize=(7.5, 4), layout="constrained")
    axes = drawn.subplots()
    methods = results["methods"].values()
    for method, colour in zip(
        methods, COLOURS[-3:] + COLOURS[1:2], strict=True
    ):
        label = method["label"].replace("`", "")
        axes.plot(method["curve"], color=colour, label=label, linewidth=1)
    axes.plot(
        results["predicted"],
        color=COLOURS[0],
        label="SGD, weight decay, as predicted",
        linestyle="--",
    )
    # Grey: the transient. Dotted: where the rate begins to fall.
    axes.axvspan(0, results["transient"], color="grey", alpha=0.15, linewidth=0)
    axes.axvline(results["held"], color="grey", linewidth=0.8, linestyle=":")
    axes.set_yscale("log")
    axes.set_ylim(bottom=1e-4)
    axes.set_xlabel("step")
    axes.set_ylabel("RMS rotation (radians a step)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center")
    return drawn
