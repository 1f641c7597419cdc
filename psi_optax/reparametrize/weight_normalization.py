"""Weight normalization with a learned gain for each group."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from psi_optax import geometry
from psi_optax.groups import Groups, Plan, Scalars, ScaleGroup, Tree, make_plan
from psi_optax.groups.paths import leaves_with_paths
from psi_optax.groups.specs import covering_specs, read_specs
from psi_optax.groups.types import Leaves
from psi_optax.reparametrize._centering import center
from psi_optax.reparametrize.spheres import centered, unit


class Reparametrized(NamedTuple):
    """Weights, and a learned gain for each of their groups.

    Attributes:
        weights: a tree like params.
        gains: an array of the group shape for the name of each group.

    Raises:
        AttributeError: an attribute is set.

    Examples:
        >>> import jax.numpy as jnp
        >>> raw = Reparametrized({"w": jnp.ones((4, 2))}, {"w": jnp.ones(2)})
        >>> raw.gains["w"].shape
        (2,)
    """

    weights: Tree
    gains: Mapping[str, jax.Array]


class Reparametrization(NamedTuple):
    """A pair of functions, from params to the trained tree and back.

    Attributes:
        init: maps params to the tree that is trained.
        apply: maps that tree to params, inside of the loss. After training it
            removes the reparametrization.

    Raises:
        AttributeError: an attribute is set.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> wn = weight_normalization(ScaleGroup(axes=0))
        >>> wn.apply(wn.init(jnp.array([3.0, 4.0]))).tolist()
        [3.0, 4.0]
    """

    init: Callable[[Tree], Reparametrized]
    apply: Callable[[Reparametrized], Tree]


def _norms(plan: Plan, w: Leaves) -> Scalars:
    return geometry.norm(plan, w)


def _centered_norms(plan: Plan, w: Leaves) -> Scalars:
    _, norms, varies = center(plan, w)
    return {name: norm * varies[name] for name, norm in norms.items()}


# The gains that keep weights as they are.
_GAINS = {unit: _norms, centered: _centered_norms}


def weight_normalization(
    groups: Groups, function: Callable[..., Tree] = unit
) -> Reparametrization:
    r"""Reparametrize each group by a learned gain: \(w = g\,v/|v|\).

    The loss of a tree that `init` returns is `loss(apply(raw))`. Train that
    tree with groups from `raw_groups`; gains are ordinary. A normalization
    layer that follows cancels the gains, which then have no effect.

    `init` keeps the function of the network with `unit`. With `centered` it
    removes the mean of each group, which changes the function unless a
    normalization layer follows or the means are zero.

    Args:
        groups: scale groups of params in any form.
        function: `unit` or `centered`.

    Returns:
        A pair of functions, `init` and `apply`. For new params, `apply` undoes
        `init` to the bit with `unit`. `apply` of the trained tree is the params
        without a reparametrization.

    Raises:
        ValueError: another function; when called, groups that do not fit.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> wn = weight_normalization({"w": ScaleGroup(axes=0)})
        >>> raw = wn.init({"w": jnp.array([3.0, 4.0])})
        >>> raw.gains
        {'w': Array(5., dtype=float32)}
        >>> def loss(raw):
        ...     return jnp.sum(wn.apply(raw)["w"])
        >>> jax.grad(loss)(raw).gains["w"].round(4)
        Array(1.4, dtype=float32)

    References:
        Salimans and Kingma, [Weight
        normalization](https://arxiv.org/abs/1602.07868), 2016; Huang et al.,
        Centered weight normalization, ICCV 2017.
    """
    if function not in _GAINS:
        raise ValueError(
            f"function={function!r}: choose `unit` or `centered`. Other"
            " functions take no gain for each group; call them in the loss."
        )

    def init(params: Tree) -> Reparametrized:
        plan = make_plan(groups, params)
        return Reparametrized(
            params, _GAINS[function](plan, plan.select(params))
        )

    def apply(raw: Reparametrized) -> Tree:
        return function(raw.weights, groups, raw.gains)

    return Reparametrization(init, apply)


@dataclasses.dataclass(frozen=True)
class RawGroups:
    """Groups of a `Reparametrized` tree, as `raw_groups` returns them.

    Attributes:
        groups: scale groups of params, in any form.
    """

    groups: Groups

    def __hash__(self) -> int:
        """Hash by leaves, as trees and mappings have no hash."""
        return hash(frozenset(leaves_with_paths(self.groups)))

    def groups_for(self, raw: Any) -> dict[str, ScaleGroup | None]:
        """Return the group of each path of a `Reparametrized` tree, or None.

        Raises:
            TypeError: a tree of another type.
            ValueError: the groups do not fit its weights.
        """
        if not isinstance(raw, Reparametrized):
            raise TypeError(
                f"raw_groups are of a Reparametrized tree, and params are"
                f" {type(raw).__name__}: pass what `init` of"
                " weight_normalization returns."
            )
        leaves = leaves_with_paths(raw.weights)
        specs = covering_specs(read_specs(self.groups, raw.weights), leaves)
        stated = {_below("weights", path): spec for path, spec in specs.items()}
        return {**stated, "gains": None}


def _below(prefix: str, path: str) -> str:
    return f"{prefix}/{path}" if path else prefix


def raw_groups(groups: Groups) -> RawGroups:
    """Specify the groups of a tree that `weight_normalization` makes.

    Args:
        groups: scale groups of params in any form.

    Returns:
        A rule that can be passed as groups: the groups of params are at
        `weights/...`, and gains are ordinary.

    Raises:
        TypeError: when it is resolved, if the tree is of another type.
        ValueError: when it is resolved, if groups do not fit the weights.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> groups = {"w": ScaleGroup(axes=0)}
        >>> raw = weight_normalization(groups).init({"w": jnp.ones((4, 2))})
        >>> raw_groups(groups).groups_for(raw)
        {'weights/w': ScaleGroup(axes=(0,)), 'gains': None}
    """
    return RawGroups(groups)
