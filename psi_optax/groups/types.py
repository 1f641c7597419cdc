"""Types shared by all rooms: trees, grouped leaves, and forms of groups."""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax

from psi_optax.groups.scale_group import ScaleGroup

# Any pytree: of parameters, of updates, of groups.
Tree: TypeAlias = Any

# Leaves by path, and scalars of groups by the name of their groups.
Leaves: TypeAlias = dict[str, jax.Array]
Scalars: TypeAlias = dict[str, jax.Array]


@runtime_checkable
class GroupRule(Protocol):
    """Groups that are resolved against the parameters they meet."""

    def groups_for(self, params: Tree) -> Any:
        """Return groups for `params`: a tree, a prefix tree or a mapping."""
        ...


# A statement for all parameters; a rule, or a function of params; a tree like
# params, a prefix of it or a mapping from paths, with a statement at each
# leaf; None if every parameter is ordinary.
Groups: TypeAlias = ScaleGroup | GroupRule | Callable[[Tree], Any] | Tree | None
