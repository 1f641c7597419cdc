"""Groups of a given norm, with or without their means."""

import jax
import jax.numpy as jnp

from psi_optax import geometry
from psi_optax.groups import Groups, Leaves, Plan, Scalars, Tree, make_plan
from psi_optax.reparametrize._centering import Centered, center
from psi_optax.reparametrize._gains import Gains, read_gains
from psi_optax.transforms.contract import cast_like


def unit(params: Tree, groups: Groups, gains: Gains = 1.0) -> Tree:
    r"""Divide every group by its norm: weight normalization.

    \[w = g\, v/|v|.\]

    Call it inside of the loss. The loss then does not depend on the norm of v,
    and each group of v is a scale group whatever follows.

    Args:
        params: arrays.
        groups: scale groups in any form.
        gains: the norms g, which may be negative or zero: a number, or an array
            of the group shape for the name of each group.

    Returns:
        A tree like params. Ordinary parameters are unchanged, and groups of
        norm zero stay zero; derivatives there are finite.

    Raises:
        TypeError: gains are neither a number nor a mapping.
        ValueError: groups do not fit params; gains do not fit groups.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> unit(jnp.array([3.0, 4.0]), ScaleGroup(0), 10.0).tolist()
        [6.0, 8.0]

    References:
        Salimans and Kingma, [Weight
        normalization](https://arxiv.org/abs/1602.07868), 2016, equation 2.
    """
    plan = make_plan(groups, params)
    w = plan.select(params)
    moved = geometry.project_to_sphere(plan, w, read_gains(plan, gains))
    return plan.merge(params, cast_like(moved, w))


def centered(params: Tree, groups: Groups, gains: Gains = 1.0) -> Tree:
    r"""Subtract the mean of every group, and divide by the norm of the rest.

    \[w = g\, (v - \bar v)/|v - \bar v|.\]

    The loss depends neither on the norm nor on the mean of v. Gradients have
    mean zero: a mean of v stays, and shrinks the rotation per step.

    Args:
        params: see `unit`.
        groups: see `unit`.
        gains: see `unit`.

    Returns:
        A tree like params. Ordinary parameters are unchanged. Groups of equal
        weights, up to rounding, are zero, and so are derivatives there.

    Raises:
        TypeError: gains are neither a number nor a mapping.
        ValueError: groups do not fit params; gains do not fit groups.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> w = centered(jnp.array([3.0, 7.0]), ScaleGroup(0))
        >>> print(jnp.round(w, 4))
        [-0.7071  0.7071]

    References:
        Huang et al., [Centered weight
        normalization](https://openaccess.thecvf.com/content_ICCV_2017/papers/Huang_Centered_Weight_Normalization_ICCV_2017_paper.pdf),
        ICCV 2017, equation 2, without an epsilon.
    """
    plan = make_plan(groups, params)
    w = plan.select(params)
    moved = rescaled(plan, center(plan, w), read_gains(plan, gains))
    return plan.merge(params, cast_like(moved, w))


def rescaled(plan: Plan, parts: Centered, gains: Scalars) -> Leaves:
    """Return centered groups of given norms."""
    factors = plan.broadcast(jax.tree.map(jnp.divide, gains, parts.norms))
    return {path: x * factors[path] for path, x in parts.rest.items()}
