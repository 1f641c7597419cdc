"""Weight rescaling in place of weight decay."""

import jax
import optax

from psi_optax._validation import check_transformation
from psi_optax.groups import Groups
from psi_optax.optimizers._warnings import warn_without_groups
from psi_optax.transforms import rescale_weights
from psi_optax.transforms.contract import floating_transform
from psi_optax.wrappers.conflicts import CONFLICTS
from psi_optax.wrappers.nesting import with_nesting_check


def weight_rescaling(
    optimizer: optax.GradientTransformation,
    groups: Groups,
    *,
    every: jax.typing.ArrayLike = 1,
    radius: jax.typing.ArrayLike | str = 1.0,
) -> optax.GradientTransformationExtraArgs:
    r"""Run an optimizer, and rescale groups to one norm (WRS).

    After every `every`-th step of the optimizer the weights of each group are
    rescaled to the radius. With SGD and `every=1`, the directions are those of
    PSI-SGD with the learning rate \(\eta/R^2\), from the second step on: only
    the first step depends on the initial norms. With longer periods norms drift
    between rescalings. `joint_groups(groups)` rescales layer by layer, and the
    norms of filters within a layer drift. The norm of a layer of n filters is
    \(\sqrt n\) times theirs: choose "init" there, or a radius of that size, as
    a much smaller one makes every rescaling a jump.

    The optimizer's state is not rescaled. The paper's treatment of it, its
    period and its grouping are unknown to us. Running statistics of a BatchNorm
    do not follow a rescaling, see `retract`.

    Args:
        optimizer: an optimizer with its own learning rate.
        groups: scale groups in any form.
        every: the period in steps, at least 1.
        radius: the norm R, positive; or "init", the norms at `init`. From far
            larger norms it takes several steps, see `psi`.

    Returns:
        A transform that needs params.

    Raises:
        TypeError: `optimizer` is not a gradient transformation.
        ValueError: groups do not fit params; params are missing in `update`;
            a radius or a period that is not positive; an optimizer that keeps
            its own weights.

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
    check_transformation(optimizer=optimizer)
    tx = optax.chain(
        optimizer, rescale_weights(groups, radius=radius, every=every)
    )
    tx = with_nesting_check("weight_rescaling", tx, groups, CONFLICTS)
    return warn_without_groups(floating_transform(tx, groups), groups)
