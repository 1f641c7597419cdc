"""Transforms that multiply every group by one number."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from psi_optax import geometry
from psi_optax._validation import check_positive
from psi_optax.groups import Plan
from psi_optax.groups.types import Leaves
from psi_optax.transforms.contract import stateless


def scale_by_group_norm(groups: Any) -> optax.GradientTransformationExtraArgs:
    r"""Multiplies the updates of every group by the norm of its weights.

    \(u \mapsto |w|\, u\). Before an optimizer it turns the gradient with
    respect to weights into the gradient with respect to their direction, which
    does not depend on their scale; after it, a step of the direction into a
    step of the weights. Groups of norm zero get zero, whatever their updates
    are. Ordinary parameters pass through.

    Args:
        groups: scale groups in any form.

    Returns:
        A stateless transform that needs params.

    Raises:
        ValueError: groups do not fit params; params are missing in `update`.

    Examples:
        >>> from psi_optax import ScaleGroup
        >>> tx = scale_by_group_norm(ScaleGroup(axes=0))
        >>> w = jnp.array([[3.0], [4.0]])
        >>> tx.update(jnp.ones((2, 1)), tx.init(w), w)[0].tolist()
        [[5.0], [5.0]]

    References:
        Yi, [Accelerating training of batch normalization: a manifold
        perspective](https://arxiv.org/abs/2101.02916), UAI 2022, eq. 7, where
        both factors stand together as \(|w|^2\).
    """

    def function(plan: Plan, u: Leaves, w: Leaves) -> Leaves:
        return geometry.scale(plan, u, geometry.norm(plan, w))

    return stateless(groups, function)


def clip_by_group_norm(
    groups: Any, max_norm: jax.typing.ArrayLike
) -> optax.GradientTransformationExtraArgs:
    r"""Shortens the updates of every group to a norm of at most `max_norm`.

    \(u \mapsto u \min(1, m/|u|)\). Equivariant where updates are of
    degree 0: between the two `scale_by_group_norm`, or inside `psi`. Groups
    within the bound are not changed by a bit. Ordinary parameters pass.

    Args:
        groups: scale groups in any form.
        max_norm: the bound m, positive.

    Returns:
        A stateless transform. It does not need params.

    Raises:
        ValueError: groups do not fit the updates; the bound is not positive.

    Examples:
        >>> from psi_optax import ScaleGroup
        >>> tx = clip_by_group_norm(ScaleGroup(axes=0), max_norm=1.0)
        >>> u = jnp.array([[3.0, 0.3], [4.0, 0.4]])
        >>> print(tx.update(u, tx.init(u))[0])
        [[0.6 0.3]
         [0.8 0.4]]

    References:
        Cho and Lee, [Riemannian approach to batch
        normalization](https://arxiv.org/abs/1709.09603), 2017, section 4.
    """
    check_positive("max_norm", max_norm)

    def function(plan: Plan, u: Leaves, _: Leaves) -> Leaves:
        factor = jax.tree.map(_shortening, geometry.norm(plan, u))
        return geometry.scale(plan, u, factor)

    def _shortening(norm: jax.Array) -> jax.Array:
        bound = jnp.asarray(max_norm, norm.dtype)
        return jnp.where(
            norm <= bound, 1, geometry.rescaling_factor(bound, norm)
        )

    return stateless(groups, function, needs_params=False)


def normalize_by_group_norm(
    groups: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""Divides the updates of every group by their norm.

    \(u \mapsto u/|u|\): only the direction of an update counts. Updates of
    norm zero, in float32 below 1e-19, stay as they are. Ordinary parameters
    pass through.

    Args:
        groups: scale groups in any form.

    Returns:
        A stateless transform. It does not need params.

    Raises:
        ValueError: groups do not fit the updates.

    Examples:
        >>> from psi_optax import ScaleGroup
        >>> tx = normalize_by_group_norm(ScaleGroup(axes=0))
        >>> u = jnp.array([[3.0, 0.0], [4.0, 0.0]])
        >>> print(tx.update(u, tx.init(u))[0])
        [[0.6 0. ]
         [0.8 0. ]]

    References:
        Wen et al., [Hyperball optimization](https://whenwen.github.io), 2025.
    """
    return stateless(
        groups,
        lambda plan, u, _: geometry.project_to_sphere(plan, u, plan.full(1)),
        needs_params=False,
    )
