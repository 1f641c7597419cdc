"""SGD on the PSI manifold."""

import jax
import optax

from psi_optax._validation import check_decay, check_flag, check_learning_rate
from psi_optax.groups import Groups
from psi_optax.optimizers._sgd import sgd_on_spheres
from psi_optax.optimizers._warnings import warn_without_groups
from psi_optax.optimizers.psi import psi_direction
from psi_optax.transforms.radius import Radius, check_radius


def psi_sgd(
    learning_rate: optax.ScalarOrSchedule,
    groups: Groups,
    *,
    momentum: jax.typing.ArrayLike | None = None,
    nesterov: bool = False,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
    retraction: str | None = "projection",
) -> optax.GradientTransformationExtraArgs:
    r"""Run SGD on the PSI manifold, with momentum in direction space.

    \(m \leftarrow \mu m + r\,g\), and the weights rotate against m. Without
    momentum this is the paper's PSI-SGD, \(w - \eta\,r^2 g\), retracted to the
    sphere. The momentum is of degree 0. It differs from the paper's, see
    `psi_sgdm`, by the square of the angle per step.

    A learning rate of \(\eta/|w|^2\) gives the first step of SGD with
    \(\eta\): about \(\eta/2\) after He initialization. Decay the learning
    rate, ideally to zero: norms do not grow here, and so do not decay it.

    *One sum.* With `radius="init"`, by projection and without Nesterov
    momentum, a step takes one sum per group, \(|w + c\,m|^2\). The norm of the
    weights is that of the last step, and so is the radial part of the momentum,
    since gradients of a scale-invariant loss are tangent. Both are in the state
    (`known`), with one weight of each group: if one of these has changed by
    more than 1 %, other code has moved the weights, and norms are measured. On
    several devices and on accelerators they always are. A state of an earlier
    version, with `known=None`, loads. Gradients with a radial part (SAM, a
    penalty on the weights) change the length of a step by about the rotation
    times the radial share of the momentum: at 0.04 radians and a share of 0.3
    by less than 0.001 radians. For any gradients,
    `psi_direction(learning_rate, optax.trace(0.9), groups)` measures three sums
    at every step.

    Args:
        learning_rate: a number or a schedule. It is not an angle: a step
            without momentum rotates a group by the arctan of
            \(\eta\,|r\,g|\), and so by less as gradients shrink.
        groups: scale groups in any form.
        momentum: the decay \(\mu\), in [0, 1), or None for none.
        nesterov: whether to use Nesterov momentum, which needs a momentum.
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
        >>> print((w + u).round(3))  # rotated by arctan(0.1 * 5 * 1)
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
            "nesterov=True has no effect with momentum=None: pass a momentum,"
            " such as 0.9, or omit nesterov."
        )
    check_radius(radius)
    if not nesterov and isinstance(radius, str) and retraction == "projection":
        tx = sgd_on_spheres(
            check_learning_rate(learning_rate),
            groups,
            momentum=momentum,
            ordinary=ordinary,
        )
        return warn_without_groups(tx, groups)
    return psi_direction(
        learning_rate,
        optax.identity()
        if momentum is None
        else optax.trace(momentum, nesterov),
        groups,
        ordinary=ordinary,
        radius=radius,
        retraction=retraction,
    )
