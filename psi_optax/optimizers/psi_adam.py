"""Adam on the PSI manifold."""

import jax
import optax

from psi_optax._validation import check_decay, check_nonnegative, check_schedule
from psi_optax.groups import Groups
from psi_optax.optimizers.psi import psi_direction
from psi_optax.transforms import add_decayed_weights
from psi_optax.transforms.radius import Radius


def psi_adam(
    learning_rate: optax.ScalarOrSchedule,
    groups: Groups,
    *,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    weight_decay: optax.ScalarOrSchedule | None = None,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
    retraction: str | None = "projection",
) -> optax.GradientTransformationExtraArgs:
    r"""Run Adam on the PSI manifold, with both moments of \(r\,g\).

    The moments are of degree 0, so `eps` keeps the equivariance. Weight decay
    acts on ordinary parameters alone: on a sphere it has no effect.

    The norm of a step of Adam is about \(\sqrt{n}\) for n weights in a group,
    so a step rotates it by about \(\eta\sqrt{n}\). Compare the learning rate
    with weights of magnitude \(1/\sqrt{n}\).

    Args:
        learning_rate: a number or a schedule. One of 0.03 rotates a filter of
            100 weights by 0.3 radians per step, from which on `init` warns.
        groups: scale groups in any form.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: decoupled decay of ordinary parameters, times the learning
            rate; a number, a schedule, or None for none. It must be None or
            zero beside `ordinary`, on which it has no effect.
        ordinary: see `psi`.
        radius: see `psi`.
        retraction: see `psi`.

    Returns:
        A transform that needs params, with a `PsiState`.

    Raises:
        TypeError: a hyperparameter is of another type.
        ValueError: a hyperparameter is out of its range; `ordinary` together
            with a weight decay that may be nonzero; see `psi`.

    Warns:
        UserWarning: in `init`, see `psi_direction`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> tx = psi_adam(0.1, ScaleGroup(axes=0))
        >>> w = jnp.array([3.0, 4.0])
        >>> u, _ = tx.update(jnp.array([-0.8, 0.6]), tx.init(w), w)
        >>> jnp.linalg.norm(w + u).round(4).item()
        5.0

    References:
        Kingma and Ba, [Adam](https://arxiv.org/abs/1412.6980), 2014.
    """
    check_decay("b1", b1)
    check_decay("b2", b2)
    check_nonnegative("eps", eps)
    decay = 0.0 if weight_decay is None else weight_decay
    decay = check_schedule("weight_decay", decay)
    if ordinary is not None:
        _check_no_decay(decay)
    return psi_direction(
        learning_rate,
        optax.chain(
            optax.scale_by_adam(b1, b2, eps),
            add_decayed_weights(decay, groups),
        ),
        groups,
        ordinary=ordinary,
        radius=radius,
        retraction=retraction,
    )


def _check_no_decay(weight_decay: optax.ScalarOrSchedule) -> None:
    """Reject a decay that may be nonzero, and would have no effect."""
    unknown = callable(weight_decay) or isinstance(
        weight_decay, jax.core.Tracer
    )
    if unknown or weight_decay:
        raise ValueError(
            f"weight_decay={weight_decay!r} has no effect on parameters that"
            " `ordinary` updates: put the decay into it, as in"
            " ordinary=optax.adamw(0.001, weight_decay=0.01)."
        )
