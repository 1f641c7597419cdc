"""Joint groups: weights that are scale-invariant one by one are so jointly."""

import dataclasses

from psi_optax.groups.paths import leaves_with_paths, longest_prefix
from psi_optax.groups.plan import make_plan
from psi_optax.groups.scale_group import ScaleGroup
from psi_optax.groups.specs import read_specs
from psi_optax.groups.types import Groups, Tree


@dataclasses.dataclass(frozen=True)
class JointGroups:
    """Joint groups, as `joint_groups` returns them.

    Attributes:
        groups: the finer groups, in any form.
        tie: one tie for all, or None to keep the ties of `groups`.
    """

    groups: Groups
    tie: str | None

    def __hash__(self) -> int:
        """Hash by leaves, as trees and mappings have no hash."""
        return hash((frozenset(leaves_with_paths(self.groups)), self.tie))

    def groups_for(self, params: Tree) -> dict[str, ScaleGroup | None]:
        """Return the joint statement for each path of params.

        Raises:
            ValueError: the given groups do not fit params.
        """
        joint: dict[str, ScaleGroup | None] = {}
        specs = read_specs(self.groups, params)
        for x in leaves_with_paths(params):
            cover = longest_prefix(x.path, specs)
            hidden = x.is_placeholder and cover is not None and specs[cover]
            # A mask that hides a part of the joint group raises in make_plan.
            joint[x.path] = ScaleGroup((), tie=self.tie) if hidden else None
        for leaf in make_plan(self.groups, params).leaves:
            joint[leaf.path] = ScaleGroup(
                tuple(range(len(leaf.shape))),
                tie=self.tie or leaf.group.tie,
                axis_name=leaf.group.axis_name,
            )
        return joint


def joint_groups(groups: Groups, *, tie: str | None = None) -> JointGroups:
    r"""Join all groups of each parameter, or all groups of all parameters.

    Filters that can be rescaled one by one can be rescaled together, so a whole
    kernel is a scale group as well: the per-tensor (per-layer) form of a
    method. One filter of a joint group may then grow while another shrinks.
    Tied parameters, such as a kernel and its bias, stay tied.

    The norm of a joint group of n filters is \(\sqrt n\) times that of each,
    and so is its gradient in direction space: divide the learning rate of `psi`
    by n for the filters to rotate as they did one by one.

    Args:
        groups: scale groups in any form.
        tie: a name, which joins all parameters in a single group: the sphere
            of a whole network.

    Returns:
        A rule that serves wherever groups are taken. Under `shard_map`, each
        `axis_name` must name all axes that the parameter is sharded over.

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
