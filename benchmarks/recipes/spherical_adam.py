r"""AdamSRT and SGD-MRT: moments that follow scale groups on their spheres.

After a step from w to w' both methods rescale and transport the moments of a
group: the second moment, of degree -2, by \(|w|^2/|w'|^2\), and the first, of
degree -1, by \(|w|/|w'|\) and along the step. Moments of gradients in direction
space, r g, have degree 0: nothing is left to rescale, and
`transforms.scale_by_group_adam` and `transforms.transported_trace` transport.
Neither method keeps the norms of groups.

References:
    Roburin et al., [Spherical perspective on learning with normalization
    layers](https://arxiv.org/abs/2006.13382), 2020.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import psi_optax
from psi_optax import geometry, transforms
from psi_optax.groups import Leaves, Plan
from psi_optax.transforms.contract import stateless_transform


def adamsrt(
    learning_rate: optax.ScalarOrSchedule,
    groups: Any,
    b1: float = 0.9,
    b2: float = 0.999,
    *,
    transport: str = "parallel",
) -> optax.GradientTransformationExtraArgs:
    r"""Return AdamSRT, without an epsilon.

    The step of a group of d weights is \(\eta\,\sqrt d\,\hat m/\sqrt{\hat s}\),
    with one second moment for the group. Ordinary parameters get Adam.

    Args:
        learning_rate: a number or a schedule.
        groups: scale groups in any form.
        b1: decay of the first moment.
        b2: decay of the second moment.
        transport: "parallel", as published, or "projection".

    Examples:
        >>> from psi_optax import ScaleGroup
        >>> tx = adamsrt(0.1, ScaleGroup(axes=0))
        >>> w, g = jnp.array([3.0, 0.0]), jnp.array([0.0, 7.0])
        >>> print(tx.update(g, tx.init(w), w)[0].round(4))
        [-0.     -0.1414]
    """
    grouped = optax.chain(
        transforms.scale_by_group_norm(groups),
        transforms.scale_by_group_adam(
            groups, b1, b2, eps=0.0, transport=transport
        ),
        _scale_by_root_of_size(groups),
        optax.scale_by_learning_rate(learning_rate),
    )
    return _partition(grouped, optax.adam(learning_rate, b1, b2), groups)


def sgd_mrt(
    learning_rate: optax.ScalarOrSchedule,
    groups: Any,
    momentum: float = 0.9,
) -> optax.GradientTransformationExtraArgs:
    """Return SGD-MRT. Ordinary parameters get SGD with momentum.

    Args:
        learning_rate: a number or a schedule.
        groups: scale groups in any form.
        momentum: decay of the momentum.
    """
    grouped = optax.chain(
        transforms.scale_by_group_norm(groups),
        transforms.transported_trace(groups, momentum, transport="parallel"),
        _divide_by_group_norm(groups),
        optax.scale_by_learning_rate(learning_rate),
    )
    return _partition(grouped, optax.sgd(learning_rate, momentum), groups)


def _partition(
    grouped: optax.GradientTransformation,
    ordinary: optax.GradientTransformation,
    groups: Any,
) -> optax.GradientTransformationExtraArgs:
    return optax.partition(
        {"scale": grouped, "ordinary": ordinary},
        lambda params: psi_optax.group_labels(params, groups),
    )


def _scale_by_root_of_size(groups: Any) -> optax.GradientTransformation:
    """Multiply groups of d weights by the norm of d ones."""
    scale = transforms.scale_by_group_norm(groups)

    def multiply(updates: Any, params: Any) -> Any:
        del params
        ones = jax.tree.map(jnp.ones_like, updates)
        return scale.update(updates, scale.init(ones), ones)[0]

    return optax.stateless(multiply)


def _divide_by_group_norm(groups: Any) -> optax.GradientTransformation:
    """Divide the updates of groups by the norms of their weights."""

    def divide(plan: Plan, u: Leaves, w: Leaves) -> Leaves:
        factors = jax.tree.map(lambda norm: 1 / norm, geometry.norm(plan, w))
        return geometry.scale(plan, u, factors)

    return stateless_transform(groups, divide)
