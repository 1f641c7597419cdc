"""Named recipes: `psi` around a direction."""

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
from psi_optax.optimizers.psi import psi
from psi_optax.transforms import add_decayed_weights
from psi_optax.transforms.radius import Radius


def psi_sgd(
    learning_rate: optax.ScalarOrSchedule,
    groups: Any,
    momentum: float | None = None,
    nesterov: bool = False,
    *,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
    retraction: str | None = "projection",
) -> optax.GradientTransformationExtraArgs:
    r"""SGD on the PSI manifold, with momentum in direction space.

    \(m \leftarrow \mu m + r\,g\), and the weights turn against m. Without
    momentum this is the paper's PSI-SGD, \(w - \eta\,r^2 g\), brought back to
    its sphere. The momentum is of degree 0 and differs from the paper's, for
    which see `psi_sgdm`, by the square of the angle a step.

    A rate of \(\eta/|w|^2\) gives the first step that SGD takes with
    \(\eta\): about half of it after He initialization. Nothing anneals it, so
    let it decay.

    Args:
        learning_rate: a number or a schedule, about the angle a step for a
            gradient of norm 1 in direction space.
        groups: scale groups in any form.
        momentum: the decay \(\mu\), or None for none.
        nesterov: whether to look ahead, which takes a momentum.
        ordinary: see `psi`.
        radius: see `psi`.
        retraction: see `psi`.

    Returns:
        A transform that needs params, with a `PsiState`.

    Raises:
        TypeError: a hyperparameter is of another type.
        ValueError: a hyperparameter is out of its range; see `psi`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> tx = psi_sgd(0.1, ScaleGroup(axes=0), momentum=0.9)
        >>> w = jnp.array([3.0, 4.0])
        >>> u, _ = tx.update(jnp.array([-0.8, 0.6]), tx.init(w), w)
        >>> print((w + u).round(3))  # turned by arctan(0.1 * 5 * 1)
        [4.472 2.236]

    References:
        Yi, [Accelerating training of batch normalization: a manifold
        perspective](https://arxiv.org/abs/2101.02916), UAI 2022, algorithm 1.
    """
    check_flag(nesterov=nesterov)
    if momentum is not None:
        check_decay("momentum", momentum)
    elif nesterov:
        raise ValueError(
            "nesterov=True has no effect with momentum=None: give a momentum,"
            " such as 0.9, or leave nesterov."
        )
    return psi(
        optax.identity()
        if momentum is None
        else optax.trace(momentum, nesterov),
        groups,
        learning_rate=check_learning_rate(learning_rate),
        ordinary=ordinary,
        radius=radius,
        retraction=retraction,
    )


def psi_adam(
    learning_rate: optax.ScalarOrSchedule,
    groups: Any,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: optax.ScalarOrSchedule | None = None,
    *,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
    retraction: str | None = "projection",
) -> optax.GradientTransformationExtraArgs:
    r"""Adam on the PSI manifold: both moments of \(r\,g\), in direction space.

    All moments are of degree 0, so that even `eps` does not break
    equivariance. Weight decay acts on ordinary parameters only: on a sphere it
    has nothing to do.

    A step of Adam is about as long as the square root of the number of weights
    in a group, so its rate per weight is to be compared with weights of size
    \(1/\sqrt{n}\).

    Args:
        learning_rate: a number or a schedule.
        groups: scale groups in any form.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: decoupled decay of ordinary parameters, times the rate; a
            number, a schedule, or None for none. It cannot be given together
            with `ordinary`, which it would not act on.
        ordinary: see `psi`.
        radius: see `psi`.
        retraction: see `psi`.

    Returns:
        A transform that needs params, with a `PsiState`.

    Raises:
        TypeError: a hyperparameter is of another type.
        ValueError: a hyperparameter is out of its range; a weight decay that is
            not known to be zero beside `ordinary`; see `psi`.

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
    return psi(
        optax.chain(
            optax.scale_by_adam(b1, b2, eps),
            add_decayed_weights(decay, groups),
        ),
        groups,
        learning_rate=check_learning_rate(learning_rate),
        ordinary=ordinary,
        radius=radius,
        retraction=retraction,
    )


def _check_no_decay(weight_decay: optax.ScalarOrSchedule) -> None:
    """Raises for a decay that may not be zero, and that would be dropped."""
    unknown = callable(weight_decay) or isinstance(
        weight_decay, jax.core.Tracer
    )
    if unknown or weight_decay:
        raise ValueError(
            f"weight_decay={weight_decay!r} does not act on parameters that"
            " `ordinary` moves: put the decay into it, as in"
            " ordinary=optax.adamw(0.001, weight_decay=0.01)."
        )
