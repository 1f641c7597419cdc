"""The learning rate that directions feel."""

from typing import Any

import jax
import jax.numpy as jnp

from psi_optax import geometry
from psi_optax._validation import check_nonnegative, check_number
from psi_optax.groups import make_plan
from psi_optax.groups.types import Tree


def effective_learning_rate(
    learning_rate: jax.typing.ArrayLike,
    params: Tree,
    groups: Any,
    *,
    degree: float,
) -> Tree:
    r"""The rate at which each group's direction moves, \(\eta\,r^{k-1}\).

    When weights of norm r are multiplied by a, an update of *degree* k is
    multiplied by \(a^k\), while a direction sees it divided by r. So SGD's
    rate is \(\eta/r^2\) and falls as norms grow; on the PSI manifold the norm
    drops out.

    Args:
        learning_rate: a number, or a scalar array.
        params: arrays.
        groups: scale groups in any form.
        degree: of the optimizer's update: -1 for SGD, with or without
            momentum; 0 for Adam, Lion and all that divides by the gradient's
            size; 1 for `psi` and what is built on it (but -1 for `sgdp` and 0
            for `adamp`).

    Returns:
        A tree like params with an array of the group shape, float32 (float64
        for float64 weights), at grouped leaves and None elsewhere. Tied leaves
        show that of their joint norm. Infinite for a group of norm zero and a
        degree below 1.

    Raises:
        TypeError: a schedule in place of a number.
        ValueError: groups do not fit params; a negative rate.

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
        name: effective_rate(learning_rate, norm, degree)
        for name, norm in geometry.norm(plan, plan.select(params)).items()
    }
    return plan.unflatten(rates, params)


def effective_rate(
    learning_rate: jax.typing.ArrayLike,
    norm: jax.Array,
    degree: jax.typing.ArrayLike,
) -> jax.Array:
    """The rate of groups of these norms, in their dtype."""
    power = jnp.asarray(degree).astype(norm.dtype) - 1
    return jnp.asarray(learning_rate).astype(norm.dtype) * norm**power
