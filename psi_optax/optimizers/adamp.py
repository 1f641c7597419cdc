"""SGDP and AdamP: steps without their radial part."""

from typing import Any

import jax
import optax

from psi_optax._validation import (
    check_decay,
    check_flag,
    check_learning_rate,
    check_nonnegative,
    check_schedule,
)
from psi_optax.groups import Groups
from psi_optax.optimizers._warnings import warn_without_groups
from psi_optax.transforms import add_decayed_weights, project_to_tangent
from psi_optax.transforms.contract import floating_transform


def sgdp(
    learning_rate: optax.ScalarOrSchedule,
    groups: Groups,
    *,
    momentum: jax.typing.ArrayLike = 0.9,
    nesterov: bool = False,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    wd_ratio: jax.typing.ArrayLike = 0.1,
) -> optax.GradientTransformationExtraArgs:
    r"""Run SGD with momentum, without the radial part of its steps (SGDP).

    \[w \leftarrow w - \eta\,\bigl(P m + \tfrac{\lambda q}{1-\mu} w\bigr)\]

    where P removes the part along the weights of each group, after momentum,
    and q is `wd_ratio` for groups and 1 for ordinary parameters. A tangent step
    still increases the norm, and the rotation depends on the norm: it is *not*
    equivariant. Here `groups` state the scale-invariant weights; the published
    method tests for them at each step (`project_by_cosine`).

    Args:
        learning_rate: a number or a schedule.
        groups: scale groups in any form.
        momentum: the decay \(\mu\), in [0, 1).
        nesterov: whether to use Nesterov momentum.
        weight_decay: \(\lambda\), decoupled; a number or a schedule. As in the
            published method, it is divided by \(1-\mu\), which makes it
            comparable with SGD's.
        wd_ratio: the factor q of the decay of groups.

    Returns:
        A transform that needs params.

    Raises:
        TypeError: a hyperparameter is of another type.
        ValueError: a hyperparameter is out of its range; groups do not fit
            params; params are missing in `update`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> tx = sgdp(0.5, ScaleGroup(axes=0))
        >>> w = jnp.array([2.0, 0.0])
        >>> u, _ = tx.update(jnp.array([4.0, 1.0]), tx.init(w), w)
        >>> abs(u).round(2).tolist()
        [0.0, 0.5]

    References:
        Heo et al., [AdamP](https://arxiv.org/abs/2006.08217), ICLR 2021.
    """
    check_decay("momentum", momentum)
    check_flag(nesterov=nesterov)
    weight_decay = check_schedule("weight_decay", weight_decay)
    return _projected(
        optax.trace(momentum, nesterov),
        learning_rate,
        groups,
        _times(weight_decay, 1 / (1 - momentum)),
        wd_ratio,
    )


def adamp(
    learning_rate: optax.ScalarOrSchedule,
    groups: Groups,
    *,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    wd_ratio: jax.typing.ArrayLike = 0.1,
) -> optax.GradientTransformationExtraArgs:
    r"""Run Adam without the radial part of its steps (AdamP).

    A step of Adam loses its part along the weights of each group. The decay is
    \(\eta\lambda\), times `wd_ratio` for groups. The rotation per step depends
    on the norm, see `sgdp`: it is *not* equivariant.

    Args:
        learning_rate: a number or a schedule.
        groups: scale groups in any form.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: \(\lambda\), decoupled; a number or a schedule.
        wd_ratio: the factor of the decay of groups.

    Returns:
        A transform that needs params.

    Raises:
        TypeError: a hyperparameter is of another type.
        ValueError: a hyperparameter is out of its range; groups do not fit
            params; params are missing in `update`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> tx = adamp(0.5, ScaleGroup(axes=0))
        >>> w = jnp.array([2.0, 0.0])
        >>> u, _ = tx.update(jnp.array([4.0, 1.0]), tx.init(w), w)
        >>> abs(u).round(2).tolist()
        [0.0, 0.5]

    References:
        Heo et al., [AdamP](https://arxiv.org/abs/2006.08217), ICLR 2021.
    """
    check_decay("b1", b1)
    check_decay("b2", b2)
    check_nonnegative("eps", eps)
    return _projected(
        optax.scale_by_adam(b1, b2, eps),
        learning_rate,
        groups,
        weight_decay,
        wd_ratio,
    )


def _projected(
    direction: optax.GradientTransformation,
    learning_rate: optax.ScalarOrSchedule,
    groups: Groups,
    weight_decay: optax.ScalarOrSchedule,
    wd_ratio: jax.typing.ArrayLike,
) -> optax.GradientTransformationExtraArgs:
    """Return steps along the tangent part of a direction, with decay."""
    learning_rate = check_learning_rate(learning_rate)
    weight_decay = check_schedule("weight_decay", weight_decay)
    check_nonnegative("wd_ratio", wd_ratio)
    tx = optax.chain(
        direction,
        project_to_tangent(groups),
        add_decayed_weights(weight_decay, groups),
        add_decayed_weights(_times(weight_decay, wd_ratio), groups, of="scale"),
        optax.scale_by_learning_rate(learning_rate),
    )
    return warn_without_groups(floating_transform(tx, groups), groups)


def _times(weight_decay: Any, factor: Any) -> Any:
    """Return a decay, or a schedule of decays, times a factor."""
    if callable(weight_decay):
        return lambda count: factor * weight_decay(count)
    return factor * weight_decay
