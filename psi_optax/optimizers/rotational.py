"""Rotational optimizers: every group rotates by one angle on average."""

import jax
import optax

from psi_optax._validation import (
    check_decay,
    check_flag,
    check_learning_rate,
    check_nonnegative,
    check_transformation,
)
from psi_optax.groups import Groups
from psi_optax.optimizers._ascent import warn_of_ascent
from psi_optax.optimizers._ordinary import require_ordinary
from psi_optax.optimizers._step_sizes import RunningMean
from psi_optax.optimizers.psi import on_spheres
from psi_optax.transforms import project_to_zero_mean
from psi_optax.transforms.radius import Radius


def rotational(
    learning_rate: optax.ScalarOrSchedule,
    direction: optax.GradientTransformation,
    groups: Groups,
    *,
    b2: jax.typing.ArrayLike = 0.9,
    eps: jax.typing.ArrayLike = 1e-8,
    centered: bool = False,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
) -> optax.GradientTransformationExtraArgs:
    r"""Rotate every group by the same angle per step, on average.

    The step is the tangent part of the direction, divided by the root of the
    running mean of its square, times the learning rate. It rotates a group by
    \(\arctan\eta\) in the mean over some steps, whatever its gradients (a
    little less while they shrink). This is the equilibrium of weight decay from
    the first step; `dynamics.matching_learning_rate` gives the learning rate
    for a tuned decay.

    Args:
        learning_rate: a number or a schedule: the angle per step.
        direction: a transform without a learning rate, such as
            `optax.trace(0.9)`, which sees gradients in direction space, and
            directions as params. An optimizer, such as `optax.sgd(0.1)`, would
            ascend, and `init` warns.
        groups: scale groups in any form.
        b2: decay of the running mean of squares, in [0, 1).
        eps: added to its root.
        centered: whether steps have mean zero, as in the published method. The
            weights should have mean zero too: `normalize(..., centered=True)`.
        ordinary: an optimizer with its own learning rate for ordinary
            parameters, required where there are any: an angle does not suit
            them. `optax.set_to_zero()` freezes them.
        radius: see `psi`.

    Returns:
        A transform that needs params, with a `PsiState`.

    Raises:
        TypeError: a hyperparameter is of another type; the direction is not a
            gradient transformation.
        ValueError: a hyperparameter is out of its range; in `init`, ordinary
            parameters without `ordinary`; see `psi`.

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
    check_transformation(direction=direction)
    check_decay("b2", b2)
    check_nonnegative("eps", eps)
    check_flag(centered=centered)
    center = project_to_zero_mean(groups) if centered else optax.identity()
    tx = on_spheres(
        optax.chain(direction, center),
        groups,
        learning_rate=check_learning_rate(learning_rate),
        ordinary=ordinary,
        radius=radius,
        step_size=RunningMean(b2, eps),
    )
    tx = warn_of_ascent(tx, direction, scaled=False)
    return require_ordinary(tx, ordinary, groups)
