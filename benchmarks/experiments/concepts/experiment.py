"""First steps of optimizers in two and in 64 dimensions, and their pictures."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import psi_optax
from benchmarks.harness import pages
from benchmarks.harness.colours import BLACK, BLUE, DARK_GREY, RED, look
from benchmarks.harness.figures import panels
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import Positives
from benchmarks.harness.results import Content, Results
from benchmarks.optimizers import OPTIMIZERS

GROUPS = psi_optax.ScaleGroup(axes=0)
SLOPE = 0.7  # the gradient's norm where the weights' is 1
RATE = 0.03

_sgd = functools.partial(OPTIMIZERS["sgd"].make, momentum=None)
_psi_sgd = functools.partial(
    OPTIMIZERS["psi_sgd"].make, groups=GROUPS, momentum=None
)

# Steps of rate 1, and the same without a retraction.
DRAWN = {
    "SGD": (_sgd(1.0), _sgd(1.0)),
    "psi_sgd": (_psi_sgd(1.0), _psi_sgd(1.0, retraction=None)),
}
COMPARED = {
    "SGD": _sgd(RATE),
    "Adam": OPTIMIZERS["adam"].make(RATE / 8),
    "psi_sgd": _psi_sgd(RATE),
    "psi_adam": OPTIMIZERS["psi_adam"].make(RATE / 8, GROUPS),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Norms of the weights."""

    # Norms from which all optimizers make a step.
    norms: Positives = (0.1, 0.178, 0.316, 0.562, 1, 1.78, 3.16, 5.62, 10)
    drawn: Positives = (1, 2)  # Norms from which steps are drawn.


def measure(settings: Settings, results: Results) -> None:
    """Make steps in the plane, and measure angles."""
    results.expect(2)
    results.part("steps", lambda: _steps(settings.drawn))
    results.part(
        "angles",
        lambda: {x: angles(tx, settings.norms) for x, tx in COMPARED.items()},
    )


def moved(tx: optax.GradientTransformation, w: Any, slope: Any) -> jax.Array:
    """Return the weights of one scale group after a step.

    The slope is the gradient of the loss at w/|w|; at w it is that over |w|.
    """
    updates, _ = tx.update(slope / jnp.linalg.norm(w), tx.init(w), w)
    return w + jnp.asarray(updates)


def angles(tx: optax.GradientTransformation, norms: Any) -> list[float]:
    """Return the rotations of the first step from weights of these norms."""
    plane = np.random.default_rng(0).normal(size=(64, 2))
    v, slope = jnp.asarray(np.linalg.qr(plane)[0].T, jnp.float32)
    starts = [jnp.float32(norm) * v for norm in norms]
    return [_angle(w, moved(tx, w, slope)) for w in starts]


def _angle(before: jax.Array, after: jax.Array) -> float:
    return psi_optax.rotation(before, after, GROUPS).item()


def _steps(norms: Any) -> dict[str, Any]:
    """Return the weights after steps, and before they are brought back."""
    found, slope = {}, jnp.array([0.0, -SLOPE])
    for name, transformations in DRAWN.items():
        found[name] = []
        for norm in norms:
            w = jnp.array([norm, 0.0])
            new, end = (moved(tx, w, slope) for tx in transformations)
            ends = {"end": end.tolist(), "new": new.tolist()}
            step = {"norm": norm, **ends, "angle": _angle(w, new)}
            found[name].append(step)
    return found


def report(content: Content) -> str:
    """Return a table of the angles."""
    found = content["parts"]["angles"]
    columns = content["settings"]["norms"], *found.values()
    rows = [["norm of the weights", *(f"`{name}`" for name in found)]]
    rows += [[f"{x:.2g}" for x in row] for row in zip(*columns, strict=True)]
    return pages.table(rows, right=True)


def figures(content: Content) -> dict[str, Figure]:
    """Draw steps in the plane, and angles against the norm."""
    steps, [axes] = panels((1, 2), 2.9, sharex=True, sharey=True)
    drawn = content["parts"]["steps"].items()
    for panel, (name, found) in zip(axes, drawn, strict=True):
        for step in found:
            _draw_step(panel, **step)
        limits = {"xlim": (-0.05, 2.3), "ylim": (-0.1, 1.6)}
        panel.set(title=name, aspect="equal", **limits)
        panel.set_axis_off()
    turned, [[panel]] = panels((1, 1), 3.6)
    _draw_angles(panel, content)
    return {"concepts-step": steps, "concepts-angles": turned}


def _draw_step(panel: Axes, norm: float, end: Any, new: Any, angle: float):
    _arc(panel, norm, (-0.05, 0.95), linestyle=":", color=DARK_GREY)
    begin, centre = (norm, 0), (0, 0)
    arrow = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "linewidth": 1.8}
    for tail, tip, colour in (
        (centre, begin, DARK_GREY),
        (begin, end, BLUE),
        (centre, new, BLACK),
    ):
        panel.annotate("", tip, tail, arrowprops={**arrow, "color": colour})
    panel.plot(*zip(new, end, strict=True), "k:")
    x, y = _arc(panel, 0.75 * norm, (0, angle), color=RED)
    text = f" {np.degrees(angle):.0f}°"
    style = {"color": RED, "fontsize": 12, "verticalalignment": "center"}
    panel.text(x[50], y[50], text, **style)


def _arc(panel: Axes, radius: float, ends: tuple[float, float], **style: Any):
    around = np.linspace(*ends, 101)
    x, y = radius * np.cos(around), radius * np.sin(around)
    panel.plot(x, y, **style)
    return x, y


def _draw_angles(panel: Axes, content: Content) -> None:
    found, norms = content["parts"]["angles"], content["settings"]["norms"]
    for name, angles_of in found.items():
        # The next one covers it.
        width = {"linewidth": 4, "markersize": 10} if name == "psi_sgd" else {}
        panel.loglog(norms, angles_of, **look(name), **width, label=name)
    panel.set_xlabel("norm of the weights")
    panel.set_ylabel("angle of the first step (radians)")
    panel.legend()


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings((0.5, 1, 2)),
    measure=measure,
    report=report,
    page="concepts.md",
    figures=figures,
)
