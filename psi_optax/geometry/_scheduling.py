"""The order of a program: few large arrays at once, all small sums together.

XLA for CPU starts all that can be started: the directions of an optimizer that
makes them anew, as Adam does, are there for every parameter before the first
step is taken. That is another copy of the parameters, in fresh memory, which
costs several times what the arithmetic does. An artificial dependence keeps
them from it. Other compilers order a program by the memory that it needs.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol, TypeVar

import jax
import jax.numpy as jnp

Leaves = dict[str, jax.Array]


class Parts(Protocol):
    """What is dealt with one after another: leaves that belong together."""

    @property
    def paths(self) -> Sequence[str]:
        """The leaves."""
        ...


_Part = TypeVar("_Part", bound=Parts)


def in_turn(
    parts: Mapping[str, _Part],
    move: Callable[[str, _Part, Leaves, Leaves], tuple[Leaves, jax.Array]],
    w: Leaves,
    u: Leaves,
    kept: Collection[str] = (),
) -> Leaves:
    """Moves part after part, of which each makes its u when it is its turn.

    Args:
        parts: by name.
        move: from a name, its part, its leaves of w and of u to what becomes
            of w, and to anything that is known only after all sums over them.
        w: the weights.
        u: what they are moved along.
        kept: paths at which u outlives all this, and need not wait.

    Returns:
        What became of w.
    """
    moved: Leaves = {}
    done = None
    for name, part in parts.items():
        here = {path: w[path] for path in part.paths}
        along = {
            path: u[path] if path in kept else after(u[path], done)
            for path in part.paths
        }
        there, done = move(name, part, here, along)
        moved |= there
    return moved


def after(x: jax.Array, done: jax.Array | None) -> jax.Array:
    """The array x, made after `done` is known, where that is worth it.

    Where it is not: outside of jit; with several devices, where it could take
    communication; and on anything but a CPU.

    Args:
        x: any shape and floating dtype.
        done: what has to be known before, of any shape; None for nothing.

    Returns:
        The bits of x.
    """
    traced = isinstance(x, jax.core.Tracer)
    if done is None or not traced or jax.device_count() > 1:
        return x
    return jax.lax.platform_dependent(
        x, done, cpu=_divide_by_one, default=lambda x, _: x
    )


def barrier(scalars: Leaves) -> Leaves:
    """The same scalars, none of which is known before all of them are.

    Sums over several devices are messages. As it orders a program parameter by
    parameter, XLA sends them one by one, unless what follows waits for all.
    Inside of `shard_map` they are left alone: what is the same on all devices
    would count as different if it waited for what is.

    Args:
        scalars: arrays by name.

    Returns:
        The bits of the arrays.
    """
    traced = any(isinstance(x, jax.core.Tracer) for x in scalars.values())
    manual = jax.sharding.get_abstract_mesh().manual_axes
    if not traced or manual or jax.device_count() == 1:
        return scalars
    return jax.lax.optimization_barrier(scalars)


@jax.jit
def _divide_by_one(x: jax.Array, done: jax.Array) -> jax.Array:
    # XLA cannot know that these are ones, and will not divide twice what is
    # used twice, as it would multiply: so it divides as x is made, and waits.
    one = jnp.maximum(jnp.any(done > 0).astype(x.dtype), 1)
    return x / jax.lax.stop_gradient(jnp.clip(x, one, one))
