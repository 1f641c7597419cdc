"""First steps of optimizers in two and in 64 dimensions, and their pictures."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import psi_optax
from benchmarks.harness import pages
from benchmarks.harness.colours import COLOURS, MARKERS
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Positives
from benchmarks.harness.results import Content, Results
from benchmarks.optimizers import OPTIMIZERS

__all__ = ["MEASUREMENT", "angles", "moved"]

GROUPS = psi_optax.ScaleGroup(axes=0)
SLOPE = 0.7  # The gradient's norm where the weights' is 1.
RATE, SIZE = 0.03, 64

_WEIGHTS, _STEP, _ARC = COLOURS[4], COLOURS[6], COLOURS[1]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Norms of the weights.

    Attributes:
        norms: Norms from which a step is made by each optimizer.
        drawn: Norms from which a step is drawn.
    """

    norms: Positives = (0.1, 0.178, 0.316, 0.562, 1, 1.78, 3.16, 5.62, 10)
    drawn: Positives = (1, 2)


def moved(tx: optax.GradientTransformation, w: Any, slope: Any) -> jax.Array:
    """Return the weights of one scale group after a step.

    The slope is the gradient of the loss at w/|w|; at w it is that over |w|.
    """
    gradient = slope / jnp.linalg.norm(w)
    updates, _ = tx.update(gradient, tx.init(w), w)
    return w + jnp.asarray(updates)


def angles(tx: optax.GradientTransformation, norms: Any) -> list[float]:
    """Return by how much the first step turns weights of several norms."""
    plane = np.random.default_rng(0).normal(size=(SIZE, 2))
    v, slope = jnp.asarray(np.linalg.qr(plane)[0].T, jnp.float32)
    weights = [jnp.float32(norm) * v for norm in norms]
    return [
        psi_optax.rotation(w, moved(tx, w, slope), GROUPS).item()
        for w in weights
    ]


def _step(name: str, norm: float) -> dict[str, Any]:
    """Return where a step of rate 1 leads, before and after a retraction."""
    make = OPTIMIZERS[name].make
    options = {"retraction": None} if name == "psi_sgd" else {}
    w, slope = jnp.array([norm, 0.0]), jnp.array([0.0, -SLOPE])
    end = moved(make(1.0, GROUPS, momentum=None, **options), w, slope)
    new = moved(make(1.0, GROUPS, momentum=None), w, slope)
    angle = psi_optax.rotation(w, new, GROUPS).item()
    return {
        "norm": norm,
        "end": end.tolist(),
        "new": new.tolist(),
        "angle": angle,
    }


def measure(settings: Settings, results: Results) -> None:
    """Make steps in the plane, and measure angles."""
    make = {name: x.make for name, x in OPTIMIZERS.items()}
    optimizers = {
        "SGD": make["sgd"](RATE, momentum=None),
        "Adam": make["adam"](RATE / 8),
        "psi_sgd": make["psi_sgd"](RATE, GROUPS, momentum=None),
        "psi_adam": make["psi_adam"](RATE / 8, GROUPS),
    }
    results.expect(2)
    results.part(
        "steps",
        lambda: {
            label: [_step(name, norm) for norm in settings.drawn]
            for label, name in (("SGD", "sgd"), ("psi_sgd", "psi_sgd"))
        },
    )
    results.part(
        "angles",
        lambda: {
            name: angles(tx, settings.norms) for name, tx in optimizers.items()
        },
    )


def report(content: Content) -> str:
    """Return a table of the angles."""
    found = content["parts"]["angles"]
    rows = [["norm of the weights", *(f"`{name}`" for name in found)]]
    for norm, *turned in zip(
        content["settings"]["norms"], *found.values(), strict=True
    ):
        rows.append([f"{norm:g}", *(f"{angle:.2g}" for angle in turned)])
    return pages.table(rows, right=True)


def figures(content: Content) -> dict[str, Figure]:
    """Draw steps from two norms, and angles against the norm."""
    norms, parts = content["settings"]["norms"], content["parts"]
    return {
        "concepts-step": _draw_steps(parts["steps"]),
        "concepts-angles": _draw_angles(norms, parts["angles"]),
    }


def _draw_steps(steps: dict[str, list[dict[str, Any]]]) -> Figure:
    """Draw steps before and after the weights are brought back."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for panel, (name, found) in zip(panels, steps.items(), strict=True):
        for step in found:
            _draw_step(panel, **step)
        panel.set_title(name)
        panel.set_aspect("equal")
        panel.set_axis_off()
        panel.set_xlim(-0.05, 2.3)
        panel.set_ylim(-0.1, 1.6)
    return figure


def _draw_step(panel: Axes, norm: float, end: Any, new: Any, angle: float):
    _arc(panel, norm, (-0.05, 0.95), linestyle=":", color=_WEIGHTS)
    _arrow(panel, (0, 0), (norm, 0), _WEIGHTS)
    _arrow(panel, (norm, 0), end, _STEP)
    _arrow(panel, (0, 0), new, "black")
    panel.plot(*zip(new, end, strict=True), "k:", linewidth=1)
    reach = 0.75 * norm
    _arc(panel, reach, (0, angle), color=_ARC)
    panel.annotate(
        f"{np.degrees(angle):.0f}°",
        (reach * np.cos(angle / 2), reach * np.sin(angle / 2)),
        color=_ARC,
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
    )


def _arc(panel: Axes, radius: float, ends: tuple[float, float], **style: Any):
    around = np.linspace(*ends, 100)
    panel.plot(radius * np.cos(around), radius * np.sin(around), **style)


def _arrow(panel: Axes, start: Any, end: Any, colour: str) -> None:
    arrow = {"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0}
    panel.annotate("", tuple(end), tuple(start), arrowprops=arrow)


def _draw_angles(norms: list[float], found: dict[str, list[float]]) -> Figure:
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    panel = figure.subplots()
    for index, (name, turned) in enumerate(found.items()):
        panel.loglog(
            norms,
            turned,
            marker=MARKERS[index],
            markersize=9 if name == "psi_sgd" else 5,  # The next one covers it.
            color=COLOURS[(0, 1, 6, 3)[index]],
            label=name,
        )
    panel.set_xlabel("norm of the weights")
    panel.set_ylabel("angle of the first step, radians")
    panel.legend()
    return figure


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings((0.5, 1, 2)),
    measure=measure,
    report=report,
    page="concepts.md",
    figures=figures,
)
