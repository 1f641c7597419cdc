"""Norm of a direction's step, tried on gradients of 1 and -1."""

import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from psi_optax.groups import GroupedLeaf, Plan, Tree
from psi_optax.groups.paths import leaves_with_paths, map_with_path

# Above this, about 0.5 GB for Adam, no step is tried.
_MOST_WEIGHTS = 2**24


def step_norm(
    direction: optax.GradientTransformation,
    plan: Plan,
    name: str,
    params: Tree,
) -> float:
    """Return the norm of a first step in groups of one name.

    One group is tried, with all other leaves cut to the least shape. The values
    of params are not used, and may be traced. If that fails, or if there is no
    step, it is the root of the number of weights, as for Adam alone.

    Args:
        direction: an Adam-like direction, with transforms around it.
        plan: the groups.
        name: of groups.
        params: arrays or shapes.
    """
    root = math.sqrt(plan.sizes[name])
    leaves = {x.path: x for x in plan.leaves if x.name == name}
    shapes = _shapes_of_one_group(plan, name, params)
    if sum(math.prod(x.shape) for x in jax.tree.leaves(shapes)) > _MOST_WEIGHTS:
        return root
    try:
        with warnings.catch_warnings(), jax.ensure_compile_time_eval():
            warnings.simplefilter("ignore")
            norm = _first_norm(direction, leaves, shapes)
    except Exception:
        return root
    here = sum(x.group.group_size(x.shape) for x in leaves.values())
    norm *= root / math.sqrt(here)  # Shards on other devices.
    return norm if 0 < norm < math.inf else root


def _shapes_of_one_group(plan: Plan, name: str, params: Tree) -> Tree:
    """Return shapes of one group, or its blocks, and the least of the rest."""
    groups = {x.path: x.group for x in plan.leaves}
    whole = {x.path for x in plan.leaves if x.name == name}

    def shrink(path: str, x: Any) -> jax.ShapeDtypeStruct:
        axes = groups[path].axes if path in whole else ()
        blocks = dict(groups[path].blocks) if path in groups else {}
        shape = (
            n if axis in axes else min(n, blocks.get(axis, 1))
            for axis, n in enumerate(np.shape(x))
        )
        return jax.ShapeDtypeStruct(tuple(shape), jnp.result_type(x))

    return map_with_path(shrink, params)


def _first_norm(
    direction: optax.GradientTransformation,
    leaves: dict[str, GroupedLeaf],
    shapes: Tree,
) -> float:
    """Return the norm of the first step."""
    direction = optax.with_extra_args_support(direction)

    @jax.jit
    def norm() -> jax.Array:
        w = map_with_path(_unit_weights, shapes)
        g = map_with_path(_signs, shapes)
        steps, _ = direction.update(g, direction.init(w), w)
        u = dict(leaves_with_paths(steps))
        return _norm_of_a_group({k: (u[k], leaf) for k, leaf in leaves.items()})

    return float(norm())


def _unit_weights(_: str, x: jax.ShapeDtypeStruct) -> jax.Array:
    """Return equal weights of norm 1."""
    return jnp.full(x.shape, max(math.prod(x.shape), 1) ** -0.5, x.dtype)


def _signs(_: str, x: jax.ShapeDtypeStruct) -> jax.Array:
    """Return alternating signs, which are orthogonal to equal weights."""
    index = jnp.arange(math.prod(x.shape)).reshape(x.shape)
    return jnp.where(index % 2 == 0, 1, -1).astype(x.dtype)


def _norm_of_a_group(
    steps: dict[str, tuple[jax.Array, GroupedLeaf]],
) -> jax.Array:
    """Return the norm of a group, whose blocks have equal steps."""
    total = jnp.zeros([])
    for u, leaf in steps.values():
        blocks = math.prod(leaf.group.group_shape(u.shape))
        total += jnp.sum(jnp.square(u.astype(total.dtype))) / blocks
    return jnp.sqrt(total)
