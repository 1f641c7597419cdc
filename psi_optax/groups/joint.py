"""Coarser groups: what is invariant group by group is so jointly."""

import dataclasses
from typing import Any

from psi_optax.groups.paths import leaves_with_paths
from psi_optax.groups.plan import make_plan
from psi_optax.groups.scale_group import ScaleGroup
from psi_optax.groups.specs import longest_prefix, read_specs
from psi_optax.groups.types import Tree


@dataclasses.dataclass(frozen=True)
class JointGroups:
    """Joint groups of given ones; see `joint_groups`, which makes it."""

    groups: Any
    tie: str | None

    def __hash__(self) -> int:
        """Hashes trees and mappings of groups too, by their leaves."""
        return hash((frozenset(leaves_with_paths(self.groups)), self.tie))

    def groups_for(self, params: Tree) -> dict[str, ScaleGroup | None]:
        """What is said of each path of params.

        Raises:
            ValueError: the given groups do not fit params.
        """
        said: dict[str, ScaleGroup | None] = {}
        statements = read_specs(self.groups, params)
        for entry in leaves_with_paths(params):
            cover = longest_prefix(entry.path, statements)
            hidden = (
                entry.is_placeholder and cover is not None and statements[cover]
            )
            # So that a mask that hides a part of the joint group is noticed.
            said[entry.path] = ScaleGroup((), tie=self.tie) if hidden else None
        for leaf in make_plan(self.groups, params).leaves:
            said[leaf.path] = ScaleGroup(
                tuple(range(len(leaf.shape))),
                tie=self.tie or leaf.group.tie,
                axis_name=leaf.group.axis_name,
            )
        return said


def joint_groups(groups: Any, *, tie: str | None = None) -> JointGroups:
    r"""One group of each parameter's groups, or one of all of them.

    Filters that can be rescaled one by one can be rescaled together, so a whole
    kernel is a scale group as well: the per-tensor (per-layer) form of a
    method. Its filters may then grow and shrink at each other's expense. Tied
    parameters, a kernel and its bias, stay tied.

    A joint group of n filters is \(\sqrt n\) times as long as each, and its
    gradient in direction space too: divide the learning rate of `psi` by n for
    filters to turn as they did one by one.

    Args:
        groups: scale groups in any form.
        tie: a name, which makes a single group of all: the sphere that a whole
            network moves on.

    Returns:
        A rule, to be handed to whatever takes groups. Under `shard_map`, each
        `axis_name` has to name all axes that the parameter is sharded over.

    Raises:
        ValueError: when it is resolved, if groups do not fit params.

    Examples:
        >>> import jax.numpy as jnp
        >>> params = {"conv": jnp.ones((3, 3, 8, 16)), "head": jnp.ones(16)}
        >>> groups = {"conv": ScaleGroup((0, 1, 2)), "head": None}
        >>> joint_groups(groups).groups_for(params)
        {'conv': ScaleGroup(axes=(0, 1, 2, 3)), 'head': None}

    References:
        Kodryan et al., [Training scale-invariant neural networks on the sphere
        can happen in three regimes](https://arxiv.org/abs/2209.03695), NeurIPS
        2022, for the sphere of a whole network.
    """
    return JointGroups(groups, tie)
