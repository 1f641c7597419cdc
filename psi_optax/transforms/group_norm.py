"""Transforms that multiply the updates of each group by a scalar."""

import jax
import jax.numpy as jnp
import optax

from psi_optax import geometry
from psi_optax._validation import check_positive
from psi_optax.groups import Groups, Leaves, Plan
from psi_optax.transforms.contract import stateless_transform


def scale_by_group_norm(
    groups: Groups,
) -> optax.GradientTransformationExtraArgs:
    r"""Multiply the updates of each group by the norm of its weights.

    \(u \mapsto |w|\, u\). Before an optimizer it converts the gradient with
    respect to weights into the gradient with respect to their direction, which
    does not depend on their scale. After an optimizer it converts a step of the
    direction into a step of the weights. Groups of norm zero get zero, whatever
    their updates are. Ordinary parameters pass through.

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

    return stateless_transform(groups, function)


def clip_by_group_norm(
    groups: Groups, max_norm: jax.typing.ArrayLike
) -> optax.GradientTransformationExtraArgs:
    r"""Clip the updates of each group to a norm of at most `max_norm`.

    \(u \mapsto u \min(1, m/|u|)\). It is equivariant if updates are of degree
    0: between the two `scale_by_group_norm`, or inside `psi`. Groups within the
    bound keep every bit. Ordinary parameters pass through.

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
        return geometry.scale(
            plan, u, jax.tree.map(factor, geometry.norm(plan, u))
        )

    def factor(norm: jax.Array) -> jax.Array:
        return clipping_factor(norm, max_norm)

    return stateless_transform(groups, function, needs_params=False)


def clipping_factor(
    norm: jax.Array, max_norm: jax.typing.ArrayLike
) -> jax.Array:
    """Return the factor that bounds a norm: 1 within the bound."""
    bound = jnp.asarray(max_norm, norm.dtype)
    factor = geometry.rescaling_factor(bound, norm)
    return jnp.where(norm <= bound, 1, factor)


def normalize_by_group_norm(
    groups: Groups,
) -> optax.GradientTransformationExtraArgs:
    r"""Divide the updates of each group by their norm.

    \(u \mapsto u/|u|\). Updates of norm zero, in float32 below 1e-19, are
    unchanged. Ordinary parameters pass through.

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
    return stateless_transform(
        groups,
        lambda plan, u, _: geometry.project_to_sphere(plan, u, plan.full(1)),
        needs_params=False,
    )
