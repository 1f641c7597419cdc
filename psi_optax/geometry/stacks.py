"""Equal small leaves as one leaf, whose step compiles and runs faster.

XLA compiles and dispatches the kernels of each leaf on their own: for small
leaves that takes longer than their arithmetic.
"""

import dataclasses
import functools
import math
from collections import defaultdict
from typing import Any

import jax
import jax.numpy as jnp

from psi_optax.geometry._scheduling import on_one_device, stored
from psi_optax.groups.plan import GroupedLeaf, Plan

# Weights in a leaf, beyond which its arithmetic takes longer than its dispatch.
_SMALL = 4096

# Leaves in a stack. Fewer gain nothing; the time to compile a concatenation
# grows with the square of their number.
_LEAST, _MOST = 8, 16


@dataclasses.dataclass(frozen=True)
class Stacks:
    """A plan in which equal small leaves are one, with a new first axis.

    A stack has the path and the group name of its first leaf. Leaves are
    stacked by path and scalars of groups by name, which in a stack are equal.

    Attributes:
        plan: of the stacks, and of all other leaves.
        members: by path, the paths of the leaves of a stack; another leaf is
            its own member.
    """

    plan: Plan
    members: dict[str, tuple[str, ...]]

    def join(self, arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Stack leaves of the first plan, or scalars of its groups."""
        return {
            key: jnp.stack([arrays[x] for x in members])
            if len(members) > 1
            else arrays[key]
            for key, members in self.members.items()
            if key in arrays
        }

    def split(self, arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Undo `join`, but for the order."""
        found: dict[str, jax.Array] = {}
        for key, x in arrays.items():
            members = self.members[key]
            if len(members) == 1:
                found[key] = x
                continue
            x = stored(x)
            for i, member in enumerate(members):
                found[member] = jax.lax.index_in_dim(x, i, keepdims=False)
        return found


def stack_leaves(plan: Plan) -> Stacks:
    """Stack equal small leaves on a single device.

    Arithmetic in a stack is that of each leaf, up to the order of sums. Leaves
    on several devices may be sharded differently: they stay alone, and so do
    ties.
    """
    return _stack_leaves(plan) if on_one_device() else _alone(plan)


def _alone(plan: Plan) -> Stacks:
    return Stacks(plan, {path: (path,) for path in plan.paths})


@functools.lru_cache(maxsize=64)
def _stack_leaves(plan: Plan) -> Stacks:
    equal: dict[Any, list[GroupedLeaf]] = defaultdict(list)
    for leaf in plan.leaves:
        equal[_kind(plan, leaf)].append(leaf)
    stacks = [x for leaves in equal.values() for x in _cut(leaves)]
    return Stacks(
        Plan(tuple(map(_stacked, stacks))),
        {x[0].path: tuple(leaf.path for leaf in x) for x in stacks},
    )


def _kind(plan: Plan, leaf: GroupedLeaf) -> Any:
    """Return a value that leaves of one stack share."""
    tied = len(plan.parts()[leaf.name].leaves) > 1
    if tied or math.prod(leaf.shape) > _SMALL:
        return leaf.path
    return leaf.shape, leaf.dtype, leaf.group


def _cut(leaves: list[GroupedLeaf]) -> list[list[GroupedLeaf]]:
    """Cut equal leaves into stacks; too few for one stay alone."""
    stacks = [leaves[i : i + _MOST] for i in range(0, len(leaves), _MOST)]
    if len(stacks[-1]) < _LEAST:
        stacks += [[leaf] for leaf in stacks.pop()]
    return stacks


def _stacked(leaves: list[GroupedLeaf]) -> GroupedLeaf:
    first, count = leaves[0], len(leaves)
    if count == 1:
        return first
    group = dataclasses.replace(
        first.group,
        axes=tuple(axis + 1 for axis in first.group.axes),
        blocks=tuple((axis + 1, n) for axis, n in first.group.blocks),
    )
    return dataclasses.replace(first, shape=(count, *first.shape), group=group)
