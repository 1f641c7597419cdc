"""Scheduling hints that limit peak memory and batch collectives.

XLA for CPU starts all that can be started: the directions of Adam, which exist
for a step alone, are computed for every parameter before the first step is
taken. That is another copy of the parameters, in fresh memory, and costs
several times as much as the arithmetic. An artificial dependence prevents it.
Other compilers order a program by the memory that it needs.

All functions here return the bits of their arguments.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from psi_optax.groups.plan import Plan
from psi_optax.groups.types import Leaves, Scalars

# Scalars of groups by their kind, such as `StepSums`.
_Sums = TypeVar("_Sums", bound=tuple[Scalars, ...])

_Tree = TypeVar("_Tree")


def measure_sequentially(
    plan: Plan,
    w: Leaves,
    d: Leaves,
    measure: Callable[[Plan, Leaves, Leaves], _Sums],
    *,
    live: Any = (),
) -> tuple[Leaves, _Sums]:
    """Return directions, computed one part of a plan after another, and sums.

    Args:
        plan: the groups.
        w: the weights.
        d: directions, of the shapes of w.
        measure: maps (part, its weights, its directions) to a named tuple of
            all sums over groups that the step needs.
        live: a tree. Directions among its leaves exist beyond the step, and
            need not wait.
    """
    if not _is_traced(d) or jax.device_count() > 1:
        return d, measure(plan, w, d)
    kept = {id(x) for x in jax.tree.leaves(live)}
    ordered: Leaves = {}
    found: list[_Sums] = []
    for part in plan.parts().values():
        here = {path: d[path] for path in part.paths}
        if found:
            known = functools.reduce(jnp.add, jax.tree.leaves(found[-1]))
            here = {
                path: x if id(x) in kept else after(x, known)
                for path, x in here.items()
            }
        found.append(measure(part, {path: w[path] for path in here}, here))
        ordered |= here
    return ordered, _merge(found)


def _merge(parts: list[_Sums]) -> _Sums:
    """Return the sums of all parts."""
    merged = [
        {name: s for part in same for name, s in part.items()}
        for same in zip(*parts, strict=True)
    ]
    return type(parts[0])(*merged)


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


def computed_once(x: jax.Array, w: jax.Array) -> jax.Array:
    """Return x, which a CPU computes once for all of its uses.

    XLA for CPU computes an elementwise x again within each of its users. If x
    and a user each take the place of an array that both read, that costs a copy
    of both arrays.

    Args:
        x: any shape and floating dtype.
        w: like x. Where it is non-finite, x becomes NaN.
    """
    if not isinstance(x, jax.core.Tracer):
        return x
    return jax.lax.platform_dependent(
        x, w, cpu=_divide_by_finite, default=lambda x, _: x
    )


@jax.jit
def _divide_by_finite(x: jax.Array, w: jax.Array) -> jax.Array:
    # XLA does not know that this is one, and divides once, not twice.
    return x / (0 * jax.lax.stop_gradient(w) + 1).astype(x.dtype)


def once_per_group(scalars: Scalars, known: Scalars) -> Scalars:
    """Return scalars that a CPU computes once per group.

    XLA for CPU computes them again for each weight that they multiply, the sine
    of an angle included, but for a quotient: measured, that took as long as all
    memory traffic of a step. A constant it may write out for each weight.

    Args:
        scalars: arrays by name.
        known: like scalars, computed from arrays of the step.
    """
    if not _is_traced(known):
        return scalars
    # On every platform: branches would have to be sharded alike, and x may be a
    # constant.
    return jax.tree.map(_divide_by_positive, scalars, known)


@jax.jit
def _divide_by_positive(x: jax.Array, known: jax.Array) -> jax.Array:
    return x / jnp.maximum((known > 0).astype(x.dtype), 1)


def stored(x: jax.Array) -> jax.Array:
    """Return x, computed once and not by one kernel per slice.

    Args:
        x: any shape and floating dtype.
    """
    return _divide_by_positive(x, x) if _is_traced(x) else x


def barrier(scalars: _Tree) -> _Tree:
    """Return scalars, all of which are known before any is used.

    Sums over several devices are messages. XLA sends them one by one in the
    order of parameters, unless their users wait for all. Inside of `shard_map`
    there is no barrier: a sum that is equal on all devices would no longer
    count as equal.

    Args:
        scalars: a tree of arrays.
    """
    manual = jax.sharding.get_abstract_mesh().manual_axes
    if not _is_traced(scalars) or manual or jax.device_count() == 1:
        return scalars
    return jax.lax.optimization_barrier(scalars)


def on_one_device() -> bool:
    """Return whether there is one device, and no `shard_map` around."""
    manual = jax.sharding.get_abstract_mesh().manual_axes
    return jax.device_count() == 1 and not manual


def checks_weights() -> bool:
    """Return whether a step checks weights, or else measures all of them.

    A check is a conditional. Between several devices its predicate would be a
    message, and a GPU would have to send it to the host.
    """
    return on_one_device() and jax.default_backend() == "cpu"


def apart(x: jax.Array) -> jax.Array:
    """Return x, for a use that XLA for CPU keeps apart from the others.

    XLA for CPU widens bfloat16 to float32 for each operation. It merges equal
    widenings, and writes the one that a sum shares with an update out, in twice
    the memory of x. It also repeats the rounding to bfloat16 for each use of a
    result, and keeps the operands for that. A use behind a barrier reads x
    itself, which is in memory anyway.

    Args:
        x: any shape and dtype. It is returned itself unless it is bfloat16.
    """
    manual = jax.sharding.get_abstract_mesh().manual_axes
    traced = isinstance(x, jax.core.Tracer)
    if x.dtype != jnp.bfloat16 or not traced or manual:
        return x
    return jax.lax.platform_dependent(
        x, cpu=jax.lax.optimization_barrier, default=lambda x: x
    )


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


def _is_traced(arrays: Any) -> bool:
    leaves = jax.tree.leaves(arrays)
    return any(isinstance(x, jax.core.Tracer) for x in leaves)
