"""Weight rescaling, in place of weight decay."""

from typing import Any

import jax
import optax

from psi_optax._validation import check_transformation
from psi_optax.transforms import rescale_weights
from psi_optax.transforms.contract import on_floats
from psi_optax.wrappers.nesting import with_nesting_check


def weight_rescaling(
    inner: optax.GradientTransformation,
    groups: Any,
    *,
    every: jax.typing.ArrayLike = 1,
    radius: jax.typing.ArrayLike | str = 1.0,
) -> optax.GradientTransformationExtraArgs:
    r"""Weight rescaling (WRS): an optimizer whose groups go back to one norm.

    After every `every`-th step of `inner` the weights of each group are
    rescaled to the radius. At every step, with SGD inside, the directions are
    those of PSI-SGD with the rate \(\eta/R^2\), from the second step on: only
    the first sees the norms that weights began with. With longer periods they
    drift in between. `joint_groups(groups)` rescales layer by layer, which
    leaves the norms of filters within a layer to drift; the norm of a layer of
    n filters is \(\sqrt n\) times theirs, so take "init" there, or a radius of
    that size: one that is much smaller makes every rescaling a jump.

    The optimizer's state is not rescaled; the paper's treatment of it, its
    period and its grouping are not known to us, and nothing is claimed of
    them. Rescaling moves the collected statistics of a BatchNorm, see
    `rescale_weights`.

    Args:
        inner: an optimizer, with its learning rate.
        groups: scale groups in any form.
        every: the period in steps, at least 1.
        radius: the norm R, positive; or "init", the norms that `init` finds.
            From far larger norms it takes several steps, see `psi`.

    Returns:
        A transform that needs params.

    Raises:
        TypeError: `inner` is no gradient transformation.
        ValueError: groups do not fit params; params are missing in `update`;
            a radius or a period that is not positive; an inner optimizer that
            keeps weights of its own.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> tx = weight_rescaling(optax.sgd(0.5), ScaleGroup(axes=0))
        >>> w = jnp.array([3.0, 0.0])
        >>> u, _ = tx.update(jnp.array([0.0, -8.0]), tx.init(w), w)
        >>> print((w + u).round(3))
        [0.6 0.8]

    References:
        Liu et al., [Weight rescaling](https://arxiv.org/abs/2102.03497), 2022.
    """
    check_transformation(inner=inner)
    tx = optax.chain(inner, rescale_weights(groups, radius=radius, every=every))
    return on_floats(with_nesting_check("weight_rescaling", tx, groups), groups)
