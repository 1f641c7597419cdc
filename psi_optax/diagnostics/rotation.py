"""How far directions turn."""

from typing import Any

from psi_optax import geometry
from psi_optax.groups import make_plan
from psi_optax.groups.types import Tree


def rotation(old: Tree, new: Tree, groups: Any) -> Tree:
    """The angle by which the direction of every group has turned.

    Args:
        old: params before.
        new: params after.
        groups: scale groups in any form.

    Returns:
        A tree like params with an array of the group shape, in radians from 0
        to pi, at grouped leaves and None elsewhere. Exactly 0.0 where old and
        new are identical; NaN where one of the two is zero. In float32 angles
        down to 1e-7, which arccos would lose, come out right between weights
        of about the same norm, as before and after a step; between weights of
        different norms they are right to 1e-7.

    Raises:
        ValueError: groups do not fit params, or the two trees differ.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> old, new = jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0])
        >>> print(rotation(old, new, ScaleGroup(0)).round(4))
        1.5708

    References:
        Kosson, Messmer and Jaggi, [Rotational
        equilibrium](https://arxiv.org/abs/2305.17212), ICML 2024, on why this
        is the quantity to watch.
    """
    plan = make_plan(groups, old)
    before, after = plan.select(old, "old"), plan.select(new, "new")
    return plan.unflatten(geometry.angle(plan, before, after), old)
