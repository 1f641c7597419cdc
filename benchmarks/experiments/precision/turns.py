"""Turns of groups along great circles, by steps of one angle."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import psi_optax
from benchmarks.experiments.precision.modes import GROUPS, MODES, group_sum
from psi_optax.wrappers import MasterWeightsState

__all__ = ["follow"]

SHAPE = (576, 16)  # 3 x 3 x 64 weights a filter


def follow(mode: str, angle: float, steps: int) -> dict[str, dict[str, float]]:
    """Turn groups along great circles by an angle, in radians, at each step.

    Returns:
        For the weights and their float32 copies, if any, means over groups:
        `first_length`, the angle of the first step over the one asked for;
        `first_cosine`, of its displacement with the one asked for; `progress`,
        the angle turned in the plane of the circle over the one asked for;
        `aside`, the final angle to that plane, in radians.
    """
    dtype, wrap = MODES[mode]
    start, ahead = _circle()
    w = start.astype(jnp.dtype(dtype))
    plane = tuple(x.astype(np.float32) for x in _basis(w, ahead))
    descent = functools.partial(
        psi_optax.psi_direction, angle, optax.identity()
    )
    tx = wrap(descent(GROUPS, retraction="exponential"))
    run = jax.jit(functools.partial(_follow, tx, dtype))
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
    """Return unit vectors along the weights and across them, by group."""
    along = _unit(w.astype(np.float64))
    return along, _unit(ahead - along * (along * ahead).sum(0))


def _unit(x: np.ndarray) -> np.ndarray:
    """Divide by norms, except zero by zero."""
    return x / np.maximum(np.linalg.norm(x, axis=0), np.finfo(x.dtype).tiny)


def _follow(tx, dtype, w, plane, times):
    """Return the weights after the first and all steps, and angles turned."""
    along, across = plane

    def place(w):
        w = w.astype(jnp.float32)
        return group_sum(along * w), group_sum(across * w)

    def step(carry, _):
        w, state, turned = carry
        x, y = place(w)
        square = group_sum(w.astype(jnp.float32) ** 2)
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


def _seen(w, state) -> dict[str, Any]:
    """Return the weights, and the float32 weights that they are copies of."""
    if isinstance(state, MasterWeightsState):
        return {"weights": w, "copies": state.weights}
    return {"weights": w}


def _between(before, after):
    """Return the angle from one vector of the plane to another."""
    (a, b), (c, d) = before, after
    return jnp.arctan2(a * d - b * c, a * c + b * d)


def _compare(w, plane, angle, first, last) -> dict[str, float]:
    """Compare the first step and the final place with those asked for."""
    w, first, last = (np.asarray(x, np.float64) for x in (w, first, last))
    along, across = _basis(w, plane[1].astype(np.float64))
    asked = _unit((np.cos(angle) - 1) * along + np.sin(angle) * across)
    end, moved = _unit(last), first - w
    radial = (along * moved).sum(0)
    tangent = np.linalg.norm(moved - along * radial, axis=0)
    turned = np.arctan2(tangent, np.linalg.norm(w, axis=0) + radial)
    beside = end - along * (along * end).sum(0) - across * (across * end).sum(0)
    return {
        "first_length": float(turned.mean() / angle),
        "first_cosine": float((asked * _unit(moved)).sum(0).mean()),
        "aside": float(np.arcsin(np.linalg.norm(beside, axis=0)).mean()),
    }
