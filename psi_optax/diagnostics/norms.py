"""Norms of groups: reading and setting them."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psi_optax import geometry
from psi_optax._validation import check_flag, check_positive
from psi_optax.groups import Groups, Leaves, Plan, Tree, make_plan
from psi_optax.groups.frameworks import weights_of
from psi_optax.groups.reductions import to_accumulator
from psi_optax.transforms.contract import cast_like


def group_norms(params: Tree, groups: Groups) -> Tree:
    """Return the norm of every group.

    Args:
        params: arrays; or a model, as for `find_groups`.
        groups: scale groups in any form.

    Returns:
        A tree like params with an array of the group shape, float32 (float64
        for float64 weights), at grouped leaves and None elsewhere. Each tied
        leaf has the norm of the joint group.

    Raises:
        ValueError: groups do not fit params.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> params = {"kernel": jnp.array([[3.0], [4.0]]), "bias": jnp.ones(1)}
        >>> group_norms(params, {"kernel": ScaleGroup(0), "bias": None})
        {'bias': None, 'kernel': Array([5.], dtype=float32)}
    """
    params = weights_of(params)
    plan = make_plan(groups, params)
    return plan.unflatten(geometry.norm(plan, plan.select(params)), params)


def normalize(
    params: Tree,
    groups: Groups,
    radius: ArrayLike = 1.0,
    *,
    centered: bool = False,
) -> Tree:
    """Rescale every group to one norm, without a change of the training loss.

    The network's output in *evaluation* does change: BatchNorm's running
    statistics belong to the old norms, until they have caught up (hundreds of
    steps at momentum 0.99). So normalize before training, not in the middle of
    it. For trained weights, rescale the statistics too (`batch_stats.rescale`).

    It also removes the effect of a normalization layer's epsilon: filters so
    small that the epsilon matters become scale-invariant once normalized. It
    has no such use for the layer's own scale and bias, which are groups if
    another normalization follows: at norm 1 for all channels together, the next
    epsilon matters more. Normalize kernels, and biases tied to
    them: `report.select(r".*/(kernel|bias)")`.

    Args:
        params: arrays.
        groups: scale groups in any form.
        radius: the norm, positive.
        centered: whether to subtract the mean of every group first, as in
            centered weight normalization. This changes the loss, unless the
            inputs of each group sum to zero.

    Returns:
        A tree like params. Ordinary parameters are unchanged, and so are groups
        of norm zero (centered: of equal weights), which have no direction.

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
    plan = make_plan(groups, params)
    w = plan.select(params)
    if centered:
        moved = _normalize_centered(plan, w, radius)
    else:
        moved = geometry.project_to_sphere(plan, w, plan.full(radius))
    return plan.merge(params, cast_like(moved, w))


def _normalize_centered(plan: Plan, w: Leaves, radius: ArrayLike) -> Leaves:
    """Return groups of mean zero on the sphere; those of equal weights as w."""
    rest = geometry.center(plan, w)
    on_sphere = geometry.project_to_sphere(plan, rest, plan.full(radius))
    constant = jax.tree.map(
        _is_rounding, geometry.norm(plan, rest), geometry.norm(plan, w)
    )
    return {
        path: jnp.where(keep != 0, to_accumulator(w[path]), on_sphere[path])
        for path, keep in plan.broadcast(constant).items()
    }


def _is_rounding(rest: jax.Array, norm: jax.Array) -> jax.Array:
    """Return 1 where a group without its mean is rounding error, else 0."""
    # The mean is off by a few roundings of it, and so is every difference.
    return (rest <= 64 * jnp.finfo(norm.dtype).eps * norm).astype(norm.dtype)
