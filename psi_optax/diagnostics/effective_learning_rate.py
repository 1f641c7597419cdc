"""Effective learning rates: learning rates in direction space."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psi_optax import geometry
from psi_optax._validation import check_nonnegative, check_number
from psi_optax.groups import Groups, Tree, make_plan


def effective_learning_rate(
    learning_rate: ArrayLike, params: Tree, groups: Groups, *, degree: float
) -> Tree:
    r"""Return the learning rate of each group's direction, \(\eta\,r^{k-1}\).

    If weights of norm r are multiplied by a, an update of *degree* k is
    multiplied by \(a^k\). The direction changes by the update divided by r.
    Therefore the effective learning rate of SGD is \(\eta/r^2\), which
    decreases as norms grow. On the PSI manifold it does not depend on the norm.

    Args:
        learning_rate: a number, or an array of shape ().
        params: arrays.
        groups: scale groups in any form.
        degree: of the optimizer's update: -1 for SGD, with or without momentum;
            0 for Adam, Lion and other updates that are divided by the size of
            the gradient; 1 for `psi` and the optimizers built on it, except
            `sgdp` (-1) and `adamp` (0).

    Returns:
        A tree like params with an array of the group shape, float32 (float64
        for float64 weights), at grouped leaves and None elsewhere. Each tied
        leaf has the rate of the joint group. Infinite for a group of norm zero
        and a degree below 1.

    Raises:
        TypeError: the learning rate is a schedule or another non-number; the
            degree is not a number.
        ValueError: groups do not fit params; a negative learning rate.

    Examples:
        >>> from psi_optax import ScaleGroup
        >>> w = jnp.array([[3.0], [4.0]])
        >>> effective_learning_rate(0.5, w, ScaleGroup(0), degree=-1)
        Array([0.02], dtype=float32)

    References:
        van Laarhoven, [L2 regularization versus batch and weight
        normalization](https://arxiv.org/abs/1706.05350), 2017.
    """
    check_nonnegative("learning_rate", learning_rate)
    check_number("degree", degree)
    plan = make_plan(groups, params)
    rates = {
        name: rate_at_norm(learning_rate, norm, degree)
        for name, norm in geometry.norm(plan, plan.select(params)).items()
    }
    return plan.unflatten(rates, params)


def rate_at_norm(
    learning_rate: ArrayLike, norm: jax.Array, degree: ArrayLike
) -> jax.Array:
    """Return the effective learning rate at a norm, in its shape and dtype."""
    power = jnp.asarray(degree).astype(norm.dtype) - 1
    return jnp.asarray(learning_rate).astype(norm.dtype) * norm**power
