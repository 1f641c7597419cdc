"""The ascent of sharpness-aware minimization, relative to norms."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from psi_optax import geometry
from psi_optax._validation import check_positive
from psi_optax.groups import Groups, Plan, Tree, make_plan
from psi_optax.groups.paths import leaves_with_paths
from psi_optax.transforms.contract import floating_transform
from psi_optax.transforms.floating import upcast_half


def relative_ascent(
    rho: jax.typing.ArrayLike, groups: Groups
) -> optax.GradientTransformationExtraArgs:
    r"""Perturb every group relative to its norm, for `optax.contrib.sam`.

    \[u \mapsto -\rho\, T^2 u / \lVert T u\rVert\]

    with T the norm of a group, and 1 for an ordinary parameter. SAM subtracts
    updates of its `adv_optimizer`, and so ascends. A group moves by the angle
    whose tangent is \(|u|/|w|\). The root of the sum of the squares of these
    tangents and of the steps of ordinary parameters is \(\rho\): all groups
    share it. ASAM with one factor per filter and \(\eta = 0\) is the same
    perturbation.

    With `psi` inside, a run does not depend on the norms of the weights:

        optax.contrib.sam(
            psi_sgd(0.1, groups), relative_ascent(0.1, groups), opaque_mode=True
        )

    Inside `psi` a norm is 1, and the raw ascent is relative. Choose the opaque
    mode, which asks for `grad_fn`: the transparent one accepts no other extra
    arguments, and shows the perturbed weights to BatchNorm's running
    statistics. A gradient of zero gives zero, where `optax.contrib.normalize`
    gives NaN. A non-finite gradient makes all steps non-finite. The square of
    the gradient must be representable: in float32, a gradient below 1e-19
    counts as zero, and one above 1e19 is NaN.

    Inside `shard_map` the norm is that of the weights of this device, and of
    the shards that `axis_name` of a group adds.

    Args:
        rho: \(\rho\), positive.
        groups: scale groups in any form.

    Returns:
        A stateless transform that needs params.

    Raises:
        TypeError: rho is not a number.
        ValueError: rho is not positive; groups do not fit params; params are
            missing in `update`.

    Examples:
        >>> from psi_optax import ScaleGroup
        >>> tx = relative_ascent(0.5, ScaleGroup(axes=0))
        >>> w, g = jnp.array([3.0, 4.0]), jnp.array([0.8, -0.6])
        >>> [f"{x:.2f}" for x in tx.update(g, tx.init(w), w)[0]]
        ['-2.00', '1.50']

    References:
        Foret et al., [Sharpness-aware
        minimization](https://arxiv.org/abs/2010.01412), ICLR 2021; Kwon et al.,
        [ASAM](https://arxiv.org/abs/2102.11600), ICML 2021, eq. 7.
    """
    check_positive("rho", rho)

    def init_fn(params: Tree) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update_fn(
        updates: Tree, state: Any, params: Tree = None, **extra_args: Any
    ) -> tuple[Tree, Any]:
        del extra_args
        plan = make_plan(groups, params)
        norms = geometry.norm(plan, plan.select(params))
        relative = geometry.scale(plan, plan.select(updates), norms)
        wide = plan.merge(upcast_half(updates), relative)
        length = _norm(plan, wide)
        shrink = geometry.safe_divide(-jnp.asarray(rho, length.dtype), length)
        steps = jax.tree.map(lambda x: shrink.astype(x.dtype) * x, wide)
        grouped = geometry.scale(plan, plan.select(steps), norms)
        steps = plan.merge(steps, grouped)
        return jax.tree.map(
            lambda x, u: x.astype(u.dtype), steps, updates
        ), state

    return floating_transform(
        optax.GradientTransformationExtraArgs(init_fn, update_fn), groups
    )


def _norm(plan: Plan, tree: Tree) -> jax.Array:
    """Return the norm of all leaves, those of groups summed over a mesh."""
    w = plan.select(tree)
    squares = list(plan.dot(w, w).values()) + [
        jnp.square(jnp.abs(x.leaf))
        for x in leaves_with_paths(tree)
        if not x.is_placeholder and x.path not in w
    ]
    dtypes = [x.dtype for x in squares]
    widest = max(dtypes, key=lambda d: d.itemsize, default=jnp.float32)
    total = sum(
        (jnp.sum(x.astype(widest)) for x in squares), jnp.zeros([], widest)
    )
    return geometry.safe_sqrt(total)
