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
from psi_optax.transforms.state_checks import find_states

# Above this, about 0.5 GB for Adam, no step is tried.
_MOST_WEIGHTS = 2**24

# Steps at which a schedule inside the direction is tried.
_COUNTS = (0, *(int(10 ** (n / 2)) for n in range(13)))


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
            norm = _largest_norm(direction, leaves, shapes)
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


def _largest_norm(
    direction: optax.GradientTransformation,
    leaves: dict[str, GroupedLeaf],
    shapes: Tree,
) -> float:
    """Return the norm of the first step, at the largest of its schedules."""
    direction = optax.with_extra_args_support(direction)

    @jax.jit
    def norm_at(count: jax.Array) -> jax.Array:
        w = map_with_path(_unit_weights, shapes)
        state = _with_schedules_at(count, direction.init(w))
        g = map_with_path(_signs, shapes)
        u = dict(leaves_with_paths(direction.update(g, state, w)[0]))
        return _norm_of_a_group({k: (u[k], leaf) for k, leaf in leaves.items()})

    state = jax.eval_shape(direction.init, shapes)
    has_schedule = any(find_states(state, optax.ScaleByScheduleState))
    counts = _COUNTS if has_schedule else (0,)
    return max(float(norm_at(jnp.asarray(n, jnp.int32))) for n in counts)


def _unit_weights(_: str, x: jax.ShapeDtypeStruct) -> jax.Array:
    """Return equal weights of norm 1."""
    return jnp.full(x.shape, max(math.prod(x.shape), 1) ** -0.5, x.dtype)


def _signs(_: str, x: jax.ShapeDtypeStruct) -> jax.Array:
    """Return alternating signs, which are orthogonal to equal weights."""
    index = jnp.arange(math.prod(x.shape)).reshape(x.shape)
    return jnp.where(index % 2 == 0, 1, -1).astype(x.dtype)


def _with_schedules_at(count: jax.Array, state: Any) -> Any:
    """Return a state whose scale_by_schedule has made some steps."""

    def is_schedule(x: Any) -> bool:
        return isinstance(x, optax.ScaleByScheduleState)

    return jax.tree.map(
        lambda x: x._replace(count=count) if is_schedule(x) else x,
        state,
        is_leaf=is_schedule,
    )


def _norm_of_a_group(
    steps: dict[str, tuple[jax.Array, GroupedLeaf]],
) -> jax.Array:
    """Return the norm of a group, whose blocks have equal steps."""
    total = jnp.zeros([])
    for u, leaf in steps.values():
        blocks = math.prod(leaf.group.group_shape(u.shape))
        total += jnp.sum(jnp.square(u.astype(total.dtype))) / blocks
    return jnp.sqrt(total)
