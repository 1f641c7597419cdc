"""Move weights, and multiply weights group by group."""

from collections.abc import Callable, Mapping

import numpy as np

from psi_optax.groups import ScaleGroup, make_plan
from psi_optax.invariance.probe.evaluation import Weights

# The initial weights of layers have a larger root mean square than this. Up to
# it they are zeros, or the small factors of branches.
_SMALL = 2e-3


def move(w: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return weights in general position.

    A loss may be invariant at zeros alone, or up to rounding at the small
    factors that branches of a network begin with.
    """
    wide = w.astype(np.float64)
    size = float(np.sqrt(np.mean(wide * wide))) if w.size else 0.0
    noise = random.normal(size=w.shape)
    moved = wide + 0.3 * (size if size > _SMALL else 1.0) * noise
    return moved.astype(w.dtype)


def rescale(
    weights: Weights,
    groups: Mapping[str, ScaleGroup],
    factors: Callable[[tuple[int, ...]], np.ndarray],
) -> Weights:
    """Multiply groups by factors.

    Args:
        weights: the weights, by path.
        groups: groups of some of them, by path.
        factors: returns factors of a given group shape; tied groups have them
            in common.
    """
    plan = make_plan({path: groups.get(path) for path in weights}, weights)
    drawn = {name: factors(shape) for name, shape in plan.group_shapes.items()}
    return weights | {
        leaf.path: _times(weights[leaf.path], drawn[leaf.name], leaf.group)
        for leaf in plan.leaves
    }


def multiply(weights: Weights, factor: float) -> Weights:
    """Multiply weights by one number, in their dtype."""
    return {path: (w * factor).astype(w.dtype) for path, w in weights.items()}


def _times(w: np.ndarray, factors: np.ndarray, group: ScaleGroup) -> np.ndarray:
    blocks = dict(group.blocks)
    unblocked = tuple(a for a in group.axes if a not in blocks)
    factors = np.expand_dims(factors, unblocked)
    for axis, count in blocks.items():
        factors = np.repeat(factors, w.shape[axis] // count, axis)
    return (w * factors).astype(w.dtype)
