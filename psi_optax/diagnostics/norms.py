"""Norms of groups."""

from psi_optax import geometry
from psi_optax.groups import Groups, Tree, make_plan
from psi_optax.groups.frameworks import weights_of


def group_norms(params: Tree, groups: Groups) -> Tree:
    """Return the norm of every group.

    Args:
        params: arrays; or a model, as for `find_groups`.
        groups: scale groups in any form.

    Returns:
        A tree like params with an array of the group shape, float32 (float64
        for float64 weights), at grouped leaves and None elsewhere. Each tied
        leaf has the norm of the joint group.

    Raises:
        ValueError: groups do not fit params.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> params = {"kernel": jnp.array([[3.0], [4.0]]), "bias": jnp.ones(1)}
        >>> group_norms(params, {"kernel": ScaleGroup(0), "bias": None})
        {'bias': None, 'kernel': Array([5.], dtype=float32)}
    """
    params = weights_of(params)
    plan = make_plan(groups, params)
    return plan.unflatten(geometry.norm(plan, plan.select(params)), params)
