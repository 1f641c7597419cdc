"""Rotation under control: steps of one length on average."""

from typing import Any

import jax
import optax

from psi_optax._validation import (
    check_flag,
    check_learning_rate,
    check_transformation,
)
from psi_optax.optimizers.psi import psi
from psi_optax.transforms import (
    project_to_tangent,
    project_to_zero_mean,
    scale_by_group_rms,
)
from psi_optax.transforms.radius import Radius


def rotational(
    learning_rate: optax.ScalarOrSchedule,
    direction: optax.GradientTransformation,
    groups: Any,
    *,
    decay: jax.typing.ArrayLike = 0.9,
    eps: jax.typing.ArrayLike = 1e-8,
    centered: bool = False,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
) -> optax.GradientTransformationExtraArgs:
    r"""A rotational variant: every group turns by the same angle on average.

    The tangent part of the direction, over the root of the running mean of its
    square, times the rate: a step turns a group by \(\arctan\eta\) in the mean
    over some steps, whatever its gradients (a little less while they shrink).
    That is what weight decay brings about in the end, from the first step on;
    `matching_learning_rate` gives the rate for a decay that works.

    Args:
        learning_rate: a number or a schedule: the angle a step.
        direction: `optax.trace(0.9)`, `optax.scale_by_adam()` or the like,
            which sees gradients in direction space, and directions as params.
            No optimizer: `optax.sgd(0.1)` in its place would ascend.
        groups: scale groups in any form.
        decay: of the running mean of squares, in [0, 1).
        eps: added to the root of it.
        centered: whether steps have mean zero, as the published method's do.
            The weights should have it too: `normalize(..., centered=True)`.
        ordinary: see `psi`. Without it ordinary parameters follow the
            direction at the same rate, which for an angle is seldom theirs.
        radius: see `psi`.

    Returns:
        A transform that needs params, with a `PsiState`.

    Raises:
        TypeError: a hyperparameter is of another type; the direction is no
            gradient transformation.
        ValueError: a hyperparameter is out of its range; see `psi`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup, rotation
        >>> tx = rotational(0.01, optax.trace(0.9), ScaleGroup(axes=0))
        >>> w = jnp.array([3.0, 4.0])
        >>> u, _ = tx.update(jnp.array([-80.0, 60.0]), tx.init(w), w)
        >>> print(rotation(w, w + u, ScaleGroup(axes=0)).round(4))
        0.01

    References:
        Kosson, Messmer and Jaggi, [Rotational
        equilibrium](https://arxiv.org/abs/2305.17212), ICML 2024, algorithm 1.
    """
    learning_rate = check_learning_rate(learning_rate)
    check_transformation(direction=direction)
    check_flag(centered=centered)
    center = project_to_zero_mean(groups) if centered else optax.identity()
    return psi(
        optax.chain(
            direction,
            center,
            project_to_tangent(groups),
            scale_by_group_rms(groups, decay, eps),
        ),
        groups,
        learning_rate=learning_rate,
        ordinary=ordinary,
        radius=radius,
    )
