"""What psi's steps become in float32, bfloat16 and float16, and the norms.

    python -m benchmarks.precision
    python -m benchmarks.precision --docs  # and docs/precision.md anew

Turns are asked for one at a time and a thousand in a row, along a great circle
that is fixed; each gradient is rounded to the dtype of the weights, as training
rounds it. Norms are followed for a million noisy steps.
"""

import argparse
import functools
import json
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

import psi_optax
from benchmarks import pages, precision_report
from benchmarks.harness import files
from benchmarks.harness.files import one_message
from benchmarks.options import at_least
from benchmarks.report import versions

__all__ = ["MODES", "NORMS", "follow", "main", "norms", "run"]

_PAGE = pages.DOCS / "precision.md"
GROUPS = psi_optax.ScaleGroup(axes=0)

ANGLES = (1e-2, 3e-3, 1e-3, 1e-4, 1e-5)  # radians a step
STEPS = 1000
SHAPE = (576, 16)  # of the weights that turn: 3 x 3 x 64 weights a filter


class Mode(NamedTuple):
    """How weights are stored, and what keeps steps from being lost."""

    dtype: str
    wrap: Callable[[optax.GradientTransformation], optax.GradientTransformation]


def _alone(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    return tx


MODES = {
    "float32": Mode("float32", _alone),
    "float16": Mode("float16", _alone),
    "bfloat16": Mode("bfloat16", _alone),
    "bfloat16, stochastic rounding": Mode(
        "bfloat16", lambda tx: psi_optax.wrappers.stochastic_rounding(tx, key=0)
    ),
    "bfloat16, master weights": Mode(
        "bfloat16", psi_optax.wrappers.master_weights
    ),
}


def follow(mode: Mode, angle: float, steps: int) -> dict[str, dict[str, float]]:
    """Turn groups along great circles, step by step.

    Args:
        mode: one of `MODES`.
        angle: what is asked of each step, in radians.
        steps: how many.

    Returns:
        For the weights, and for the float32 copies where there are any: means
        over the groups of `first_length`, the angle of the first step over
        that asked for; `first_cosine`, of its displacement with the one asked
        for; `progress`, by how much of the angle asked for they have turned in
        the end, in the plane of the circle; `aside`, their angle to that plane
        in the end, in radians.
    """
    start, ahead = _circle()
    w = start.astype(jnp.dtype(mode.dtype))
    plane = tuple(x.astype(np.float32) for x in _basis(w, ahead))
    tx = mode.wrap(
        psi_optax.psi_direction(
            angle,
            optax.identity(),
            GROUPS,
            retraction="exponential",
        )
    )
    run = jax.jit(functools.partial(_follow, tx, mode.dtype))
    first, last, turned = run(w, plane, np.arange(steps))
    return {
        name: _compare(w, plane, angle, first[name], last[name])
        | {"progress": float(np.mean(turned[name])) / (angle * steps)}
        for name in first
    }


def _circle() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.normal(size=SHAPE) / 24, random.normal(size=SHAPE)


def _basis(w: np.ndarray, ahead: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors along the weights and across them, group by group."""
    along = _unit(w.astype(np.float64))
    return along, _unit(ahead - along * (along * ahead).sum(0))


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=0)


def _follow(tx, dtype, w, plane, times):
    """Weights after the first and after all steps, and how far they turned."""
    along, across = plane

    def place(w):
        w = w.astype(jnp.float32)
        return _sum(along * w), _sum(across * w)

    def step(carry, _):
        w, state, turned = carry
        x, y = place(w)
        square = _sum(w.astype(jnp.float32) ** 2)
        # Downhill, the generator of the rotation: a tangent, over the norm.
        gradient = ((along * y - across * x) / square).astype(dtype)
        updates, state = tx.update(gradient, state, w)
        new = optax.apply_updates(w, updates)
        before, after = _seen(w, carry[1]), _seen(new, state)
        turned = {
            name: turned[name] + _between(place(before[name]), place(x))
            for name, x in after.items()
        }
        return (new, state, turned), None

    state = tx.init(w)
    turned = {name: jnp.zeros((1, SHAPE[1])) for name in _seen(w, state)}
    carry, _ = step((w, state, turned), None)
    first = _seen(*carry[:2])
    carry, _ = jax.lax.scan(step, carry, times[1:])
    return first, _seen(*carry[:2]), carry[2]


def _sum(x):
    """Group by group; as a row."""
    return x.sum(0, keepdims=True)


def _seen(w, state) -> dict[str, Any]:
    """The weights, and those that they are copies of."""
    if isinstance(state, psi_optax.wrappers.MasterWeightsState):
        return {"weights": w, "copies": state.weights}
    return {"weights": w}


def _between(before, after):
    """The angle from one vector of the plane to another."""
    (a, b), (c, d) = before, after
    return jnp.arctan2(a * d - b * c, a * c + b * d)


def _compare(w, plane, angle, first, last) -> dict[str, float]:
    """The first step in double precision, and where the last one led."""
    w, first, last = (np.asarray(x, np.float64) for x in (w, first, last))
    along, across = _basis(w, plane[1].astype(np.float64))
    norm = np.linalg.norm(w, axis=0)
    asked = norm * ((np.cos(angle) - 1) * along + np.sin(angle) * across)
    moved = first - w
    size = np.linalg.norm(moved, axis=0)
    inner = (asked * moved).sum(0) / np.linalg.norm(asked, axis=0)
    cosine = np.divide(inner, size, out=np.zeros_like(size), where=size > 0)
    tangent = moved - along * (along * moved).sum(0)
    turned = np.arctan2(
        np.linalg.norm(tangent, axis=0), norm + (along * moved).sum(0)
    )
    end = _unit(last)
    beside = end - along * (along * end).sum(0) - across * (across * end).sum(0)
    return {
        "first_length": float(turned.mean() / angle),
        "first_cosine": float(cosine.mean()),
        "aside": float(np.arcsin(np.linalg.norm(beside, axis=0)).mean()),
    }


class Long(NamedTuple):
    """A run whose norms are followed.

    Attributes:
        mode: the name of a mode.
        optimizer: "psi_sgd" or "psi_adam".
        radius: "init" or None.
    """

    mode: str
    optimizer: str = "psi_sgd"
    radius: str | None = "init"


NORMS = (
    Long("float32"),
    Long("float32", "psi_adam"),
    Long("float32", radius=None),
    Long("float32", "psi_adam", radius=None),
    Long("float16"),
    Long("bfloat16"),
    Long("bfloat16", radius=None),
    Long("bfloat16, stochastic rounding"),
    Long("bfloat16, stochastic rounding", radius=None),
    Long("bfloat16, master weights"),
)
# Of about 0.1 radians a step, which is much: rounding comes with movement.
OPTIMIZERS = {
    "psi_sgd": functools.partial(psi_optax.psi_sgd, 0.05, GROUPS, momentum=0.9),
    "psi_adam": functools.partial(psi_optax.psi_adam, 0.015, GROUPS),
}
SMALL = (64, 8)  # of the weights whose norms are followed
STRETCHES = 100


def norms(long: Long, steps: int) -> dict[str, float]:
    """Follow the norms of groups through noise.

    Args:
        long: one of `NORMS`.
        steps: how many, a multiple of 100.

    Returns:
        By what part of itself a norm is longer than the first one, in double
        precision: the `largest` of all groups and steps by its size, and the
        `early` one of the first tenth; `last` is that of the group that is
        farthest off after the last step, with its sign. `angle` is the mean
        angle of a step in radians.
    """
    mode = MODES[long.mode]
    tx = mode.wrap(OPTIMIZERS[long.optimizer](radius=long.radius))
    start = np.random.default_rng(1).normal(size=SMALL) / 8
    with jax.enable_x64(True):
        run = jax.jit(functools.partial(_wander, tx, steps // STRETCHES))
        off, angles = run(start.astype(jnp.dtype(mode.dtype)))
        off = np.asarray(off)
    return {
        "largest": float(off[:, 0].max()),
        "early": float(off[: STRETCHES // 10, 0].max()),
        "last": float(off[-1, 1]),
        "angle": float(np.mean(angles)),
    }


def _wander(tx, length, w):
    """Of each stretch: the largest deviation, the last, and the mean angle."""
    begun = _norm(w)

    def step(noise, carry, time):
        w, state, worst, turned = carry
        z = jax.lax.dynamic_slice(noise, (time,), (w.size,)).reshape(w.shape)
        # Tangent and of length 1 in direction space, about.
        gradient = (z / (math.sqrt(len(w)) * _norm(w))).astype(w.dtype)
        updates, state = tx.update(gradient, state, w)
        new = optax.apply_updates(w, updates)
        worst = jnp.maximum(worst, jnp.abs(_norm(new) / begun - 1).max())
        turned += psi_optax.rotation(w, new, GROUPS).mean()
        return (new, state, worst, turned), None

    def stretch(carry, key):
        noise = jax.random.normal(key, length + w.size, jnp.float64)
        zero = jnp.float64(0), jnp.float32(0)
        carry, _ = jax.lax.scan(
            functools.partial(step, noise), (*carry, *zero), jnp.arange(length)
        )
        *carry, worst, turned = carry
        off = _norm(carry[0]) / begun - 1
        last = off.ravel()[jnp.abs(off).argmax()]
        return tuple(carry), (jnp.stack([worst, last]), turned / length)

    keys = jax.random.split(jax.random.key(0), STRETCHES)
    return jax.lax.scan(stretch, (w, tx.init(w)), keys)[1]


def _norm(w):
    return jnp.sqrt(_sum(w.astype(jnp.float64) ** 2))


def run(steps: int = 1_000_000) -> dict[str, Any]:
    """Measure all of it.

    Args:
        steps: of the runs whose norms are followed.

    Returns:
        The numbers, which can be written as JSON.
    """
    start = time.perf_counter()
    turns = {
        name: {f"{angle:g}": follow(mode, angle, STEPS) for angle in ANGLES}
        for name, mode in MODES.items()
    }
    found = [
        {**long._asdict(), **norms(long, steps)}
        for long in tqdm(NORMS, desc=f"{steps:,} steps each")
    ]
    return {
        "steps": STEPS,
        "turns": turns,
        "long": steps,
        "norms": found,
        "versions": versions(),
        "seconds": round(time.perf_counter() - start, 1),
    }


@one_message()
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the numbers.

    Args:
        arguments: the command line; that of the process by default.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--steps", type=at_least(STRETCHES), default=1_000_000)
    add("--out", type=pathlib.Path, default="results", help="folder to write")
    add("--docs", action="store_true", help=f"write {_PAGE}")
    args = parser.parse_args(arguments)
    files.make_folder(args.out)
    results = run(args.steps)
    text = precision_report.section(results)
    print(text)
    path = args.out / "precision.json"
    files.write(path, json.dumps(results, indent=1) + "\n")
    print(f"Numbers: {path}")
    if args.docs:
        pages.refill(_PAGE, "precision", text)
        pages.keep(path, _PAGE)


if __name__ == "__main__":
    main()
