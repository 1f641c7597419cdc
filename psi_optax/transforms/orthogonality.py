"""A penalty on the cosines between the groups of one layer."""

import math
from collections import defaultdict
from typing import Any

import jax
import jax.numpy as jnp
import optax

from psi_optax import geometry
from psi_optax._validation import check_positive
from psi_optax.groups import GroupedLeaf, Groups, Leaves, Plan
from psi_optax.groups.reductions import to_accumulator
from psi_optax.transforms._sharding import automatic_sharding
from psi_optax.transforms.contract import stateless_transform


def add_orthogonality(
    strength: jax.typing.ArrayLike, groups: Groups
) -> optax.GradientTransformationExtraArgs:
    r"""Add the gradient of a penalty on the cosines between groups of a layer.

    With the directions of a layer's groups as the columns of Y, the penalty is

    \[\tfrac{\alpha}{2}\,\lVert Y^\top Y - I\rVert_F^2.\]

    It does not depend on norms. Its gradient with respect to the weights is of
    degree -1, like that of the loss, so it belongs where the gradient of the
    loss is: before an optimizer, or inside `psi`. A layer with more groups than
    weights in each cannot reach a penalty of zero. Ordinary parameters pass
    through.

    The cost is that of a product of the layer's matrix with its Gram matrix.
    Inside `shard_map` a device sees its own groups alone: shard a layer along
    its groups (`axis_name`), not across them.

    Args:
        strength: \(\alpha\), positive.
        groups: scale groups in any form.

    Returns:
        A stateless transform that needs params.

    Raises:
        ValueError: groups do not fit params; params are missing in `update`;
            the strength is not positive.

    Examples:
        >>> from psi_optax import ScaleGroup
        >>> tx = add_orthogonality(0.5, ScaleGroup(axes=0))
        >>> w = jnp.array([[1.0, 0.6], [0.0, 0.8]])
        >>> (1000 * tx.update(0 * w, tx.init(w), w)[0]).round().tolist()
        [[0.0, 384.0], [480.0, -288.0]]

    References:
        Cho and Lee, [Riemannian approach to batch
        normalization](https://arxiv.org/abs/1709.09603), 2017, eq. 17.
    """
    check_positive("strength", strength)

    def function(plan: Plan, u: Leaves, w: Leaves) -> Leaves:
        gradient = _gradient(plan, w)
        return jax.tree.map(
            lambda x, y: to_accumulator(x) + jnp.asarray(strength, y.dtype) * y,
            u,
            gradient,
        )

    return automatic_sharding(stateless_transform(groups, function))


def _gradient(plan: Plan, w: Leaves) -> Leaves:
    """Return the tangent part of 2 Y (Y'Y - I), over the norms."""
    inverse = jax.tree.map(
        lambda r: geometry.safe_divide(jnp.ones_like(r), r),
        geometry.norm(plan, w),
    )
    directions = geometry.scale(plan, w, inverse)
    columns = {
        leaf.path: _columns(leaf, directions[leaf.path]) for leaf in plan.leaves
    }
    grams: dict[str, Any] = defaultdict(int)
    for leaf in plan.leaves:
        y = columns[leaf.path]
        product = jnp.matmul(y.T, y, precision="highest")
        grams[leaf.name] += plan.sum_over_mesh(product, leaf)
    slopes = {}
    for leaf in plan.leaves:
        y = columns[leaf.path]
        gram = grams[leaf.name].astype(y.dtype)
        # The projection removes the part along Y, which is radial.
        slope = 2 * jnp.matmul(y, gram, precision="highest")
        slopes[leaf.path] = _from_columns(leaf, slope)
    tangent = geometry.project_to_tangent(plan, w, slopes)
    return geometry.scale(plan, tangent, inverse)


def _columns(leaf: GroupedLeaf, x: jax.Array) -> jax.Array:
    """Return a leaf as a matrix with a column for each group."""
    shape, order = _cut(leaf)
    count = math.prod(leaf.group_shape)
    size = math.prod(leaf.shape) // max(count, 1)
    return x.reshape(shape).transpose(order).reshape(size, count)


def _from_columns(leaf: GroupedLeaf, columns: jax.Array) -> jax.Array:
    """Return the leaf with these columns: the inverse of `_columns`."""
    shape, order = _cut(leaf)
    inverse = sorted(range(len(order)), key=order.__getitem__)
    moved = columns.reshape([shape[i] for i in order])
    return moved.transpose(inverse).reshape(leaf.shape)


def _cut(leaf: GroupedLeaf) -> tuple[list[int], list[int]]:
    """Return the shape with blocked axes cut in two, a group's axes first."""
    blocks = dict(leaf.group.blocks)
    shape: list[int] = []
    along: list[int] = []
    across: list[int] = []
    for axis, length in enumerate(leaf.shape):
        if axis in blocks:
            across.append(len(shape))
            along.append(len(shape) + 1)
            shape += [blocks[axis], length // blocks[axis]]
        else:
            (along if axis in leaf.group.axes else across).append(len(shape))
            shape.append(length)
    return shape, along + across
