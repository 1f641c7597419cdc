"""SGD-G and Adam-G: geodesic steps with transported momentum."""

import jax
import optax

from psi_optax._validation import check_decay, check_learning_rate
from psi_optax.groups import Groups
from psi_optax.optimizers._warnings import warn_without_groups
from psi_optax.optimizers.psi import on_spheres, psi
from psi_optax.transforms import (
    clip_by_group_norm,
    project_to_tangent,
    scale_by_group_adam,
    transported_trace,
)
from psi_optax.transforms.radius import Radius


def sgd_g(
    learning_rate: optax.ScalarOrSchedule,
    groups: Groups,
    *,
    momentum: jax.typing.ArrayLike = 0.9,
    max_norm: jax.typing.ArrayLike | None = 0.1,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
) -> optax.GradientTransformationExtraArgs:
    r"""Run SGD with momentum along geodesics (SGD-G).

    \[d = \mu\,\tau - \eta\,\mathrm{clip}(P\,r g), \qquad
       v \leftarrow \exp_v(d), \qquad \tau \leftarrow T d\]

    with the projection P to the tangent space, the exponential map, and
    parallel transport T to its end. A step of length t rotates a group by t
    radians. The paper starts from weights of norm 1 and sees raw gradients.
    This is the same at norm 1, and equivariant at any norm.

    The paper's penalty on the cosines between filters is
    `chain(add_orthogonality(0.1, groups), sgd_g(...))`.

    Args:
        learning_rate: a number or a schedule; it is inside the momentum.
        groups: scale groups in any form.
        momentum: the decay \(\mu\), in [0, 1).
        max_norm: bound of a group's gradient norm in direction space, positive;
            None for no bound. The paper uses 0.1, and a learning rate of 0.2.
        ordinary: see `psi`. Without it ordinary parameters follow momentum with
            the same learning rate. The paper uses
            `optax.sgd(0.01, 0.9, nesterov=True)` and decay for them.
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
        >>> print(abs((w + u).round(3)))  # rotated by 90 degrees
        [0. 2.]

    References:
        Cho and Lee, [Riemannian approach to batch
        normalization](https://arxiv.org/abs/1709.09603), 2017, algorithm 2.
    """
    learning_rate = check_learning_rate(learning_rate)
    check_decay("momentum", momentum)
    return psi(
        optax.chain(
            _clipped_tangent(groups, max_norm),
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
    groups: Groups,
    *,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.99,
    eps_root: jax.typing.ArrayLike = 1e-8,
    max_norm: jax.typing.ArrayLike | None = 0.1,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
) -> optax.GradientTransformationExtraArgs:
    r"""Run Adam along geodesics, with one second moment per group (Adam-G).

    The first moment is transported in parallel. The second moment is the mean
    of \(|P\,r g|^2\), one scalar per group, so a step has the direction of the
    momentum (see `scale_by_group_adam`). A step rotates a group by about
    `learning_rate` radians or less, whatever its size, and by up to 2.4 times
    that while gradients grow.

    Args:
        learning_rate: a number or a schedule.
        groups: scale groups in any form.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps_root: added to the second moment after its bias correction (in the
            paper, before it).
        max_norm: see `sgd_g`.
        ordinary: see `psi`. Without it ordinary parameters follow Adam with the
            same learning rate.
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
        >>> print(abs((w + u).round(3)))  # rotated by 90 degrees
        [0. 2.]

    References:
        Cho and Lee, [Riemannian approach to batch
        normalization](https://arxiv.org/abs/1709.09603), 2017, algorithm 3.
    """
    moments = scale_by_group_adam(
        groups, b1, b2, 0.0, eps_root, transport="parallel"
    )
    tx = on_spheres(
        optax.chain(_clipped_tangent(groups, max_norm), moments),
        groups,
        learning_rate=check_learning_rate(learning_rate),
        ordinary=ordinary,
        radius=radius,
        retraction="exponential",
    )
    return warn_without_groups(tx, groups)


def _clipped_tangent(
    groups: Groups, max_norm: jax.typing.ArrayLike | None
) -> optax.GradientTransformation:
    """Return the tangent part of gradients, clipped by group."""
    tangent = project_to_tangent(groups)
    if max_norm is None:
        return tangent
    return optax.chain(tangent, clip_by_group_norm(groups, max_norm))
