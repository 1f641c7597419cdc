"""SGD-G and Adam-G: geodesic steps and momentum that is transported."""

from typing import Any

import jax
import optax

from psi_optax._validation import check_decay, check_learning_rate
from psi_optax.optimizers.psi import psi
from psi_optax.transforms import (
    clip_by_group_norm,
    project_to_tangent,
    scale_by_group_adam,
    transported_trace,
)
from psi_optax.transforms.radius import Radius


def sgd_g(
    learning_rate: optax.ScalarOrSchedule,
    groups: Any,
    momentum: jax.typing.ArrayLike = 0.9,
    *,
    max_norm: jax.typing.ArrayLike | None = 0.1,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
) -> optax.GradientTransformationExtraArgs:
    r"""SGD-G: momentum on great circles.

    \[d = \mu\,\tau - \eta\,\mathrm{clip}(P\,r g), \qquad
       v \leftarrow \exp_v(d), \qquad \tau \leftarrow T d\]

    with the projection P to the tangent space, the exponential map, and
    parallel transport T to where it leads. A step of length t turns a group by
    t radians. The paper starts from weights of norm 1 and sees raw gradients;
    this is the same there, and equivariant everywhere.

    The paper's penalty on filters that are not orthogonal is
    `chain(add_orthogonality(0.1, groups), sgd_g(...))`.

    Args:
        learning_rate: a number or a schedule; it is inside the momentum.
        groups: scale groups in any form.
        momentum: the decay \(\mu\), in [0, 1).
        max_norm: the longest gradient of a group, in direction space, positive;
            None for no bound. The paper's runs have 0.1 and a rate of 0.2.
        ordinary: see `psi`. Without it ordinary parameters get momentum with
            the same rate; the paper gives them
            `optax.sgd(0.01, 0.9, nesterov=True)` and decay.
        radius: see `psi`.

    Returns:
        A transform that needs params, with a `PsiState`.

    Raises:
        TypeError: a hyperparameter is of another type.
        ValueError: a hyperparameter is out of its range; see `psi`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> tx = sgd_g(jnp.pi / 2, ScaleGroup(axes=0), max_norm=1.0)
        >>> w = jnp.array([2.0, 0.0])
        >>> u, _ = tx.update(jnp.array([0.0, -3.0]), tx.init(w), w)
        >>> print(abs((w + u).round(3)))  # turned by 90 degrees
        [0. 2.]

    References:
        Cho and Lee, [Riemannian approach to batch
        normalization](https://arxiv.org/abs/1709.09603), 2017, algorithm 2.
    """
    learning_rate = check_learning_rate(learning_rate)
    check_decay("momentum", momentum)
    return psi(
        optax.chain(
            _bounded_gradient(groups, max_norm),
            optax.scale_by_learning_rate(learning_rate),
            transported_trace(groups, momentum, transport="parallel"),
        ),
        groups,
        ordinary=ordinary,
        radius=radius,
        retraction="exponential",
    )


def adam_g(
    learning_rate: optax.ScalarOrSchedule,
    groups: Any,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.99,
    eps_root: jax.typing.ArrayLike = 1e-8,
    *,
    max_norm: jax.typing.ArrayLike | None = 0.1,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
) -> optax.GradientTransformationExtraArgs:
    r"""Adam-G: Adam on great circles, with one second moment a group.

    The first moment is transported in parallel and the second is the mean of
    \(|P\,r g|^2\), one number a group, so that a step keeps the direction of
    the momentum (see `scale_by_group_adam`). A step turns a group by about
    `learning_rate` radians or less, whatever its size, and while gradients grow
    by up to 2.4 times that.

    Args:
        learning_rate: a number or a schedule, about the angle a step.
        groups: scale groups in any form.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps_root: added to the second moment, whose bias is corrected first
            (the paper's is added to the biased one).
        max_norm: see `sgd_g`.
        ordinary: see `psi`. Without it ordinary parameters get Adam with the
            same rate.
        radius: see `psi`.

    Returns:
        A transform that needs params, with a `PsiState`.

    Raises:
        TypeError: a hyperparameter is of another type.
        ValueError: a hyperparameter is out of its range; see `psi`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> tx = adam_g(jnp.pi / 2, ScaleGroup(axes=0))
        >>> w = jnp.array([2.0, 0.0])
        >>> u, _ = tx.update(jnp.array([0.0, -3.0]), tx.init(w), w)
        >>> print(abs((w + u).round(3)))  # turned by 90 degrees
        [0. 2.]

    References:
        Cho and Lee, [Riemannian approach to batch
        normalization](https://arxiv.org/abs/1709.09603), 2017, algorithm 3.
    """
    learning_rate = check_learning_rate(learning_rate)
    moments = scale_by_group_adam(
        groups, b1, b2, 0.0, eps_root, transport="parallel"
    )
    return psi(
        optax.chain(_bounded_gradient(groups, max_norm), moments),
        groups,
        learning_rate=learning_rate,
        ordinary=ordinary,
        radius=radius,
        retraction="exponential",
    )


def _bounded_gradient(groups: Any, max_norm: Any):
    """The tangent part, which a bound is put on."""
    tangent = project_to_tangent(groups)
    if max_norm is None:
        return tangent
    return optax.chain(tangent, clip_by_group_norm(groups, max_norm))
