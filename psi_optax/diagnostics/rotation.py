"""Rotations of directions between two sets of parameters."""

from psi_optax import geometry
from psi_optax.groups import Groups, Tree, make_plan


def rotation(old: Tree, new: Tree, groups: Groups) -> Tree:
    """Return the angle between the old and the new direction of each group.

    Args:
        old: params before.
        new: params after.
        groups: scale groups in any form.

    Returns:
        A tree like params with an array of the group shape, in radians from 0
        to pi, at grouped leaves and None elsewhere. Exactly 0.0 if old and new
        are identical; NaN if exactly one of the two is zero. In float32, angles
        down to 1e-7 are accurate between weights of about equal norms, as
        before and after a step. Between other norms the error is about 1e-7. An
        arccos would lose all angles below 3e-4.

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
        equilibrium](https://arxiv.org/abs/2305.17212), ICML 2024, on rotation
        as a measure of training.
    """
    plan = make_plan(groups, old)
    before, after = plan.select(old, "old"), plan.select(new, "new")
    return plan.unflatten(geometry.angle(plan, before, after), old)
