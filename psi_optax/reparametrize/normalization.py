"""Groups of one norm, for weights that are trained as they are."""

import jax.numpy as jnp
from jax.typing import ArrayLike

from psi_optax._validation import check_flag, check_positive
from psi_optax.groups import Groups, Tree, make_plan
from psi_optax.groups.reductions import to_accumulator
from psi_optax.reparametrize._centering import center
from psi_optax.reparametrize.spheres import rescaled, unit
from psi_optax.transforms.contract import cast_like


def normalize(
    params: Tree,
    groups: Groups,
    radius: ArrayLike = 1.0,
    *,
    centered: bool = False,
) -> Tree:
    """Rescale every group to one norm without changing the training loss.

    The network's output in *evaluation* does change: BatchNorm's running
    statistics fit the old norms for hundreds of steps, at momentum 0.99. So
    normalize before training, not during it. For trained weights, rescale the
    statistics too (`batch_stats.rescale`).

    It also removes the effect of a normalization layer's epsilon on small
    filters. Normalize kernels and biases tied to them only:
    `report.select(r".*/(kernel|bias)")`. A layer's own scale and bias are
    groups if another normalization follows; at norm 1 for all channels
    together, the next epsilon matters more.

    Args:
        params: arrays.
        groups: scale groups in any form.
        radius: the norm, positive.
        centered: whether to subtract the mean of every group first, as in
            centered weight normalization. This changes the loss, unless the
            inputs of each group sum to zero.

    Returns:
        A tree like params. Ordinary parameters are unchanged, and so are groups
        of norm zero (centered: of equal weights), which have no direction. See
        `reparametrize.centered` for a function that makes these zero.

    Raises:
        TypeError: the radius is not a number; `centered` is not a flag.
        ValueError: groups do not fit params; the radius is not positive.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> normalize(jnp.array([3.0, 4.0]), ScaleGroup(0), 10.0).tolist()
        [6.0, 8.0]
    """
    check_positive("radius", radius)
    check_flag(centered=centered)
    if not centered:
        return unit(params, groups, radius)
    plan = make_plan(groups, params)
    w = plan.select(params)
    parts = center(plan, w)
    moved = rescaled(plan, parts, plan.full(radius))
    varies = plan.broadcast(parts.varies)
    kept = {
        path: jnp.where(varies[path] == 0, to_accumulator(x), moved[path])
        for path, x in w.items()
    }
    return plan.merge(params, cast_like(kept, w))
