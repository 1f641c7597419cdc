"""Projections of updates: onto the tangent space, and onto mean zero."""

import optax

from psi_optax import geometry
from psi_optax._validation import check_flag
from psi_optax.groups import Groups
from psi_optax.transforms.contract import stateless_transform


def project_to_tangent(
    groups: Groups, *, centered: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""Remove the part of updates along the weights of each group.

    \(u \mapsto u - w \langle w, u\rangle / |w|^2\). The gradient of a
    scale-invariant loss has no such part. Momentum, Adam's elementwise division
    and weight decay add one, which changes the norm alone. Groups of norm zero
    and ordinary parameters pass through.

    Args:
        groups: scale groups in any form.
        centered: whether to remove the mean as well, and the part along the
            centered weights: the tangent space of centered weight
            normalization, for weights on a sphere and of mean zero. Weights of
            mean zero (`normalize(..., centered=True)`) keep it.

    Returns:
        A stateless transform that needs params.

    Raises:
        ValueError: groups do not fit params; params are missing in `update`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> tx = project_to_tangent(ScaleGroup(axes=0))
        >>> w = jnp.array([2.0, 0.0])
        >>> tx.update(jnp.array([7.0, 3.0]), tx.init(w), w)[0].tolist()
        [0.0, 3.0]

    References:
        Cho and Lee, [Riemannian approach to batch
        normalization](https://arxiv.org/abs/1709.09603), 2017; Heo et al.,
        [AdamP](https://arxiv.org/abs/2006.08217), ICLR 2021, eq. 8; Huang et
        al., [Centered weight
        normalization](https://doi.org/10.1109/ICCV.2017.305), ICCV 2017.
    """
    check_flag(centered=centered)
    return stateless_transform(
        groups,
        lambda plan, u, w: geometry.project_to_tangent(
            plan, w, u, centered=centered
        ),
    )


def project_to_zero_mean(
    groups: Groups,
) -> optax.GradientTransformationExtraArgs:
    r"""Subtract the mean of the updates of each group.

    Weights then keep their mean: zero after `normalize(..., centered=True)`.
    Inside `psi` it makes the step centered. Ordinary parameters pass through.

    Args:
        groups: scale groups in any form.

    Returns:
        A stateless transform that needs params.

    Raises:
        ValueError: groups do not fit params; params are missing in `update`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> tx = project_to_zero_mean(ScaleGroup(axes=0))
        >>> w = jnp.array([1.0, -1.0])
        >>> tx.update(jnp.array([7.0, 3.0]), tx.init(w), w)[0].tolist()
        [2.0, -2.0]

    References:
        Kosson, Messmer and Jaggi, [Rotational
        equilibrium](https://arxiv.org/abs/2305.17212), ICML 2024, algorithm 1.
    """
    return stateless_transform(
        groups, lambda plan, u, _: geometry.center(plan, u)
    )
