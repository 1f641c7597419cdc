"""Weights and data at other values: moved, or multiplied group by group."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax.groups import ScaleGroup, make_plan
from psi_optax.invariance.probe.evaluation import Leaves, is_float

Groups = Mapping[str, ScaleGroup]

# Weights of this root mean square are zeros, or small factors, at first: those
# that are drawn for layers are larger.
_SMALL = 2e-3


def move(w: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return weights in general position.

    Zeros would prove too much, and so would the small factors that branches of
    a network begin with.
    """
    wide = w.astype(np.float64)
    size = float(np.sqrt(np.mean(wide * wide))) if w.size else 0.0
    noise = random.normal(size=w.shape)
    moved = wide + 0.3 * (size if size > _SMALL else 1.0) * noise
    return moved.astype(w.dtype)


def move_number(x: Any, random: np.random.Generator) -> Any:
    """Return data that are one number, a counter or a gate, as another."""
    if not isinstance(x, np.ndarray | jax.Array) or not x.size:
        return x
    if isinstance(x, jax.Array) and len(x.devices()) > 1:
        return x
    integer = jnp.issubdtype(x.dtype, np.signedinteger) and x.size == 1
    if not integer and not is_float(x):
        return x
    held = jax.device_get(x)
    if integer:
        return jax.device_put(held + held.dtype.type(random.integers(1, 100)))
    if np.any(held != held.flat[0]):
        return x
    return jax.device_put(move(held, random))


def rescale(leaves: Leaves, groups: Groups, draw: Callable) -> Leaves:
    """Multiply groups by factors that are drawn, of the shape of the groups."""
    plan = make_plan({path: groups.get(path) for path in leaves}, leaves)
    factors = {name: draw(shape) for name, shape in plan.group_shapes.items()}
    return leaves | {
        leaf.path: _times(leaves[leaf.path], factors[leaf.name], leaf.group)
        for leaf in plan.leaves
    }


def multiply(leaves: Leaves, factor: float) -> Leaves:
    """Multiply weights by one number, in their dtype."""
    return {path: (w * factor).astype(w.dtype) for path, w in leaves.items()}


def _times(w: np.ndarray, factors: np.ndarray, group: ScaleGroup) -> np.ndarray:
    blocks = dict(group.blocks)
    unblocked = tuple(a for a in group.axes if a not in blocks)
    factors = np.expand_dims(factors, unblocked)
    for axis, count in blocks.items():
        factors = np.repeat(factors, w.shape[axis] // count, axis)
    return (w * factors).astype(w.dtype)
