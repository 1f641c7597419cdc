"""Scheduling hints that limit peak memory and batch collectives.

XLA for CPU starts all that can be started: the directions of Adam, which exist
for a step alone, are computed for every parameter before the first step is
taken. That is another copy of the parameters, in fresh memory, and costs
several times as much as the arithmetic. An artificial dependence prevents it.
Other compilers order a program by the memory that it needs.

All functions here return the bits of their arguments.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from psi_optax.groups.plan import Plan
from psi_optax.groups.types import Leaves, Scalars

# From a part of a plan, its weights and directions to scalars of its groups.
_Sums = Callable[[Plan, Leaves, Leaves], Scalars]


def step_sums(plan: Plan, w: Leaves, d: Leaves) -> Scalars:
    """Return scalars that are known after all sums of `step`."""
    return jax.tree.map(jnp.add, plan.dot(w, d), plan.dot(d, d))


def sequential(
    plan: Plan,
    w: Leaves,
    d: Leaves,
    *,
    live: Any = (),
    sums: _Sums = step_sums,
) -> Leaves:
    """Return directions that are computed one part of a plan after another.

    Args:
        plan: the groups.
        w: the weights.
        d: directions, of the shapes of w.
        live: a tree. Directions among its leaves exist beyond the step, and
            need not wait.
        sums: maps (part, its weights, its directions) to scalars that the next
            part waits for. The step must take the same sums, or they are an
            additional pass.
    """
    if not _is_traced(d) or jax.device_count() > 1:
        return d
    kept = {id(x) for x in jax.tree.leaves(live)}
    ordered: Leaves = {}
    known = None
    for name, part in plan.parts().items():
        here = {
            path: d[path]
            if known is None or id(d[path]) in kept
            else after(d[path], known)
            for path in part.paths
        }
        known = sums(part, {path: w[path] for path in here}, here)[name]
        ordered |= here
    return ordered


def after(x: jax.Array, known: jax.Array) -> jax.Array:
    """Return x, computed after `known` on a CPU.

    Args:
        x: any shape and floating dtype, traced.
        known: any shape.
    """
    return jax.lax.platform_dependent(
        x, known, cpu=_divide_by_one, default=lambda x, _: x
    )


@jax.jit
def _divide_by_one(x: jax.Array, known: jax.Array) -> jax.Array:
    # XLA does not know that these are ones. It would multiply twice for two
    # uses of x, but does not divide twice: it divides as x is computed, and so
    # waits.
    one = jnp.maximum(jnp.any(known > 0).astype(x.dtype), 1)
    return x / jax.lax.stop_gradient(jnp.clip(x, one, one))


def barrier(scalars: Scalars) -> Scalars:
    """Return scalars, all of which are known before any is used.

    Sums over several devices are messages. XLA sends them one by one in the
    order of parameters, unless their users wait for all. Inside of `shard_map`
    there is no barrier: a sum that is equal on all devices would no longer
    count as equal.

    Args:
        scalars: arrays by name.
    """
    manual = jax.sharding.get_abstract_mesh().manual_axes
    if not _is_traced(scalars) or manual or jax.device_count() == 1:
        return scalars
    return jax.lax.optimization_barrier(scalars)


def runs_on_one_device() -> bool:
    """Return whether sums over groups are never messages between devices."""
    manual = jax.sharding.get_abstract_mesh().manual_axes
    return jax.device_count() == 1 and not manual


def read_first(plan: Plan, u: Leaves, seen: Scalars) -> Leaves:
    """Return updates that are used after `seen` was computed from them.

    A compiled step that writes new weights over the old ones would otherwise
    write first, after copying the old ones in order to read them later:
    measured on a CPU, that tripled the time of a step of psi on one large leaf.
    """
    return {
        leaf.path: jax.lax.optimization_barrier(
            (u[leaf.path], seen[leaf.name])
        )[0]
        for leaf in plan.leaves
    }


def _is_traced(arrays: dict[str, jax.Array]) -> bool:
    return any(isinstance(x, jax.core.Tracer) for x in arrays.values())
