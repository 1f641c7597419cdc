"""The pictures of docs/concepts.md: one step, at several norms.

    python -m benchmarks.concepts

Every arrow and every angle is what an optimizer did.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import psi_optax
from benchmarks.harness import files
from benchmarks.harness.files import one_message
from benchmarks.pages import DOCS
from benchmarks.report import COLOURS, MARKERS

__all__ = ["angles", "main", "moved", "picture_of_a_step", "picture_of_angles"]

GROUPS = psi_optax.ScaleGroup(axes=0)
NORMS = (1.0, 2.0)
SLOPE = 0.7  # The gradient's norm where the weights' is 1.

_WEIGHTS, _STEP, _ARC = COLOURS[4], COLOURS[6], COLOURS[1]


def moved(
    tx: optax.GradientTransformation, w: jax.Array, slope: jax.Array
) -> jax.Array:
    """The weights after one step.

    Args:
        tx: an optimizer.
        w: weights of shape (n,), one scale group.
        slope: the gradient of the loss at w/|w|; at w it is that over |w|.

    Returns:
        New weights.
    """
    gradient = slope / jnp.linalg.norm(w)
    updates, _ = tx.update(gradient, tx.init(w), w)
    return w + jnp.asarray(updates)


def picture_of_a_step() -> Figure:
    """Draw one step of SGD and of psi_sgd, from two norms.

    The step of psi_sgd is drawn before the weights are brought back.

    Returns:
        A figure 9 inches wide.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    sgd = optax.sgd(1.0)
    psi = psi_optax.psi_sgd(1.0, GROUPS)
    additive = psi_optax.psi_sgd(1.0, GROUPS, retraction=None)
    pairs = {"SGD": (sgd, sgd), "psi_sgd": (additive, psi)}
    for panel, (name, pair) in zip(panels, pairs.items(), strict=True):
        for norm in NORMS:
            _draw_step(panel, *pair, norm)
        panel.set_title(name)
        panel.set_aspect("equal")
        panel.set_axis_off()
        panel.set_xlim(-0.05, 2.3)
        panel.set_ylim(-0.1, 1.6)
    return figure


def _draw_step(
    panel: Axes,
    step: optax.GradientTransformation,
    tx: optax.GradientTransformation,
    norm: float,
) -> None:
    w = jnp.array([norm, 0.0])
    slope = jnp.array([0.0, -SLOPE])
    new = moved(tx, w, slope)
    around = np.linspace(-0.05, 0.95, 100)
    panel.plot(
        norm * np.cos(around), norm * np.sin(around), ":", color=_WEIGHTS
    )
    _arrow(panel, (0, 0), w, _WEIGHTS)
    end = moved(step, w, slope)
    _arrow(panel, w, end, _STEP)
    _arrow(panel, (0, 0), new, "black")
    panel.plot(*zip(new, end, strict=True), "k:", linewidth=1)
    angle = psi_optax.rotation(w, new, GROUPS).item()
    turned = np.linspace(0, angle, 50)
    reach = 0.75 * norm
    panel.plot(reach * np.cos(turned), reach * np.sin(turned), color=_ARC)
    panel.annotate(
        f"{np.degrees(angle):.0f}°",
        (reach * np.cos(angle / 2), reach * np.sin(angle / 2)),
        color=_ARC,
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
    )


def _arrow(panel: Axes, start: object, end: object, colour: str) -> None:
    arrow = {"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0}
    panel.annotate(
        "",
        tuple(np.asarray(end).tolist()),
        tuple(np.asarray(start).tolist()),
        arrowprops=arrow,
    )


def angles(
    tx: optax.GradientTransformation, norms: np.ndarray, size: int = 64
) -> np.ndarray:
    """By how much the first step turns weights of several norms.

    Args:
        tx: an optimizer.
        norms: of the weights, shape (k,).
        size: how many weights there are.

    Returns:
        Angles in radians, shape (k,).
    """
    direction, other = np.linalg.qr(
        np.random.default_rng(0).normal(size=(size, 2))
    )[0].T
    found = []
    for norm in norms:
        w = jnp.asarray(norm * direction, jnp.float32)
        new = moved(tx, w, jnp.asarray(other, jnp.float32))
        found.append(psi_optax.rotation(w, new, GROUPS).item())
    return np.array(found)


def picture_of_angles() -> Figure:
    """Draw the angle of the first step against the norm of the weights.

    Returns:
        A figure 6 inches wide.
    """
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    panel = figure.subplots()
    norms = np.logspace(-1, 1, 9)
    optimizers = {
        "SGD": optax.sgd(0.03),
        "Adam": optax.adam(0.03 / 8),
        "psi_sgd": psi_optax.psi_sgd(0.03, GROUPS),
        "psi_adam": psi_optax.psi_adam(0.03 / 8, GROUPS),
    }
    for index, (name, tx) in enumerate(optimizers.items()):
        panel.loglog(
            norms,
            angles(tx, norms),
            marker=MARKERS[index],
            markersize=9 if name == "psi_sgd" else 5,  # The next one covers it.
            color=COLOURS[(0, 1, 6, 3)[index]],
            label=name,
        )
    panel.set_xlabel("norm of the weights")
    panel.set_ylabel("angle of the first step, radians")
    panel.legend()
    return figure


@one_message()
def main(folder: pathlib.Path = DOCS) -> None:
    """Write the pictures.

    Args:
        folder: where to.
    """
    for name, figure in {
        "concepts-step.png": picture_of_a_step(),
        "concepts-angles.png": picture_of_angles(),
    }.items():
        files.write_figure(folder / name, figure, dpi=130)


if __name__ == "__main__":
    main()
