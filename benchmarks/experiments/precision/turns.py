"""Turns of groups along great circles, by steps of one angle."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import psi_optax
from benchmarks.experiments.precision.modes import GROUPS, MODES
from psi_optax.wrappers import MasterWeightsState

SHAPE = (576, 16)  # 3 x 3 x 64 weights a filter


def turns(modes: Any, angles: Any, steps: int) -> dict[str, dict[str, Any]]:
    """Turn groups in each mode by each angle."""
    return {
        mode: {f"{angle:g}": follow(mode, angle, steps) for angle in angles}
        for mode in modes
    }


def follow(mode: str, angle: float, steps: int) -> dict[str, dict[str, float]]:
    """Turn groups along great circles by an angle, in radians, at each step.

    Of the weights and their float32 copies, if any, it returns means over
    groups: `first_length`, the angle of the first step over the one asked for;
    `first_cosine`, of its displacement with the one asked for; `progress`, the
    angle turned in the plane of the circle over the one asked for; `aside`, the
    final angle to that plane, in radians.
    """
    random = np.random.default_rng(0)
    w, ahead = random.normal(size=SHAPE) / 24, random.normal(size=SHAPE)
    w = w.astype(jnp.dtype(MODES[mode][0]))
    along = _unit(w.astype(np.float64))
    across = _unit(ahead - along * _dot(along, ahead)).astype(np.float32)
    walk = jax.jit(functools.partial(_walk, MODES[mode][1], angle, steps))
    paths = walk(w, along.astype(np.float32), across)
    return {x: _compare(w, across, angle, path) for x, path in paths.items()}


def _walk(wrap, angle, steps, w, along, across) -> dict[str, Any]:
    """Return the weights, and what they are copies of, after each step."""
    bits = jnp.finfo(w.dtype)
    descent = psi_optax.psi_direction(
        angle, optax.identity(), GROUPS, retraction="exponential"
    )
    tx = wrap(descent)

    def step(carry, _):
        w, state = carry
        wide = w.astype(jnp.float32)
        x, y = _dot(along, wide), _dot(across, wide)
        # Downhill, the generator of the rotation: a tangent, over the norm.
        gradient = (along * y - across * x) / _dot(wide, wide)
        # The compiler may omit a rounding that is an `astype` alone.
        rounded = jax.lax.reduce_precision(gradient, bits.nexp, bits.nmant)
        updates, state = tx.update(rounded.astype(w.dtype), state, w)
        w = optax.apply_updates(w, updates)
        seen = {"weights": w}
        if isinstance(state, MasterWeightsState):
            seen["copies"] = state.weights
        return (w, state), seen

    return jax.lax.scan(step, (w, tx.init(w)), length=steps)[1]


def _dot(x, y):
    """Return inner products by group, the last axis."""
    return (x * y).sum(-2, keepdims=True)


def _unit(x: np.ndarray) -> np.ndarray:
    """Divide by norms, except zero by zero."""
    return x / np.maximum(np.sqrt(_dot(x, x)), np.finfo(x.dtype).tiny)


def _compare(w, across, angle, path) -> dict[str, float]:
    """Compare the first step and the final place with those asked for."""
    w, across, path = (np.asarray(x, np.float64) for x in (w, across, path))
    along = _unit(w)
    across = _unit(across - along * _dot(along, across))
    asked = (np.cos(angle) - 1) * along + np.sin(angle) * across
    x, y, end = _dot(along, path), _dot(across, path), _unit(path[-1])
    beside = end - along * _dot(along, end) - across * _dot(across, end)
    tangent = path[0] - along * x[0]
    turned = np.arctan2(np.sqrt(_dot(tangent, tangent)), x[0])
    progress = np.unwrap(np.arctan2(y, x), axis=0)[-1] / (angle * len(path))
    means = {
        "first_length": turned / angle,
        "first_cosine": _dot(_unit(asked), _unit(path[0] - w)),
        "aside": np.arcsin(np.sqrt(_dot(beside, beside))),
        "progress": progress,
    }
    return {name: float(values.mean()) for name, values in means.items()}
