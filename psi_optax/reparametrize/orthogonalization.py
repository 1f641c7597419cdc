"""Groups of a parameter that are orthonormal to one another."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psi_optax._validation import (
    check_choice,
    check_flag,
    check_number,
    check_period,
)
from psi_optax.groups import GroupedLeaf, Groups, Tree, make_plan
from psi_optax.groups.reductions import to_accumulator
from psi_optax.reparametrize._centering import center, nonzero_norm
from psi_optax.reparametrize._matrices import check_whole, from_rows, to_rows
from psi_optax.reparametrize._orthogonal_factors import (
    gram_schmidt,
    newton_schulz,
    polar_factor,
)
from psi_optax.transforms.contract import cast_like

METHODS = ("newton_schulz", "svd", "qr")


def orthogonal(
    params: Tree,
    groups: Groups,
    *,
    gain: ArrayLike = 1.0,
    centered: bool = True,
    blocks: int | None = None,
    method: str = "newton_schulz",
    steps: int | None = None,
) -> Tree:
    r"""Make the groups of each parameter orthonormal to one another.

    With a row of Z for each group, \(W = g\,(Z Z^\top)^{-1/2} Z\), the nearest
    matrix of orthonormal rows: orthogonal weight normalization. The loss does
    not depend on any singular value of Z, nor on the means of rows if Z is
    centered. The parameter as a whole, or each block, is a scale group. With
    "qr" each group is one.

    | method | value | derivative | cost |
    |---|---|---|---|
    | "newton_schulz" | nearly orthonormal after `steps` | bounded | products |
    | "svd" | exact | exact; large for nearly dependent groups | largest |
    | "qr" | Gram-Schmidt in the order of groups | exact | between them |

    Args:
        params: arrays.
        groups: scale groups in any form.
        gain: the norm g of each group, a number.
        centered: whether to subtract the mean of each group first.
        blocks: number of blocks of consecutive groups, in the order of the
            group shape, in each parameter. Groups are orthogonal within their
            block. None for the fewest that fit.
        method: see the table. "qr" has no finite derivative where groups that
            are not zero are linearly dependent.
        steps: iterations of "newton_schulz". None for 12 if groups have at
            least four times as many weights as a block has groups, else 25. An
            error of 1e-12 takes about
            \(\ln(|Z|_F/s_{\min})/\ln 1.5 + 5\), with the smallest singular
            value \(s_{\min}\).

    Returns:
        A tree like params. Ordinary parameters are unchanged. Groups of norm
        zero, or centered of equal weights, are zero.

    Raises:
        TypeError: the gain is not a number; `centered` is not a flag.
        ValueError: groups do not fit params; blocks that do not divide the
            number of groups, or have more groups than a group has weights (but
            one, if centered); an unknown method; steps without effect.
        NotImplementedError: ties, or an `axis_name`: the whole matrix is
            needed.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> kernel = jax.random.normal(jax.random.key(0), (3, 3, 4, 8))
        >>> w = orthogonal(kernel, ScaleGroup(axes=(0, 1, 2))).reshape(36, 8)
        >>> bool(jnp.allclose(w.T @ w, jnp.eye(8), atol=1e-5))
        True

    References:
        Huang et al., [Orthogonal weight
        normalization](https://arxiv.org/abs/1709.06079), AAAI 2018; Huang et
        al., [Controllable orthogonalization in training
        DNNs](https://arxiv.org/abs/2004.00917), CVPR 2020, for iterations, here
        in another form.
    """
    check_number("gain", gain)
    check_flag(centered=centered)
    check_choice("method", method, METHODS)
    _check_steps(steps, method)
    if blocks is not None:
        check_period("blocks", blocks)
    plan = make_plan(groups, params)
    check_whole(plan, "orthogonal")
    w = plan.select(params)
    rest = center(plan, w).rest if centered else w
    moved = {}
    for leaf in plan.leaves:
        if 0 in leaf.shape:
            moved[leaf.path] = w[leaf.path]
            continue
        shape = _block_shape(leaf, blocks, centered=centered)
        whole, z = (
            to_rows(leaf, to_accumulator(x[leaf.path])).reshape(shape)
            for x in (w, rest)
        )
        rows = _orthonormal(whole, z, method, steps, centered=centered)
        rows = jnp.asarray(gain, rows.dtype) * rows.reshape(-1, shape[-1])
        moved[leaf.path] = from_rows(leaf, rows)
    return plan.merge(params, cast_like(moved, w))


def _check_steps(steps: int | None, method: str) -> None:
    """Require a number of steps, or none.

    Raises:
        ValueError: not a positive integer, or of no effect.
    """
    if steps is None:
        return
    check_period("steps", steps)
    if method != "newton_schulz":
        raise ValueError(
            f"steps={steps} has no effect with method={method!r}: omit it."
        )


def _block_shape(
    leaf: GroupedLeaf, blocks: int | None, *, centered: bool
) -> tuple[int, int, int]:
    """Return the numbers of blocks, of groups in each, and of their weights.

    Raises:
        ValueError: a block does not fit, or no block does.
    """
    columns = leaf.group.group_size(leaf.shape)
    rows = math.prod(leaf.group_shape)
    room = columns - centered
    fitting = [
        n for n in range(1, rows + 1) if rows % n == 0 and rows // n <= room
    ]
    if not fitting:
        raise ValueError(
            f"{leaf}: groups of one weight have no direction"
            " without their mean: pass centered=False, or state no group here."
        )
    count = fitting[0] if blocks is None else blocks
    if count not in fitting:
        raise ValueError(
            f"{leaf}: blocks={blocks} of its {rows} groups cannot be"
            f" orthonormal: a block has as many groups as any other, and at"
            f" most {room}, for {columns} weights{' centered' * centered}. The"
            f" fewest blocks that fit are {fitting[0]}."
        )
    return count, rows // count, columns


def _orthonormal(
    whole: jax.Array,
    z: jax.Array,
    method: str,
    steps: int | None,
    *,
    centered: bool,
) -> jax.Array:
    """Return blocks of orthonormal rows.

    Args:
        whole: the groups, of shape (blocks, rows, columns).
        z: like whole, the groups that are made orthonormal.
        method: see `orthogonal`.
        steps: see `orthogonal`.
        centered: whether z has means of zero.
    """
    rows, columns = z.shape[-2:]
    if method == "qr":
        # Each row has its own scale here, and none in what follows.
        replacement = jnp.eye(rows, columns, dtype=z.dtype)
        if centered:
            replacement = replacement - 1 / columns
        return gram_schmidt(_divided(whole, z, (-1,)), replacement)
    z = _divided(whole, z, (-2, -1))
    if method == "svd":
        moved = polar_factor(z)
    else:
        default = 12 if columns >= 4 * rows else 25
        moved = newton_schulz(z, default if steps is None else steps)
    is_zero = jnp.sum(z * z, axis=-1, keepdims=True) == 0
    return jnp.where(is_zero, 0, moved)


def _divided(
    whole: jax.Array, z: jax.Array, axes: tuple[int, ...]
) -> jax.Array:
    """Divide by the norm along some axes; zeros stay zero."""
    square = jnp.sum(z * z, axis=axes, keepdims=True)
    varies = (square != 0).astype(z.dtype)
    squares = jnp.sum(whole * whole, axis=axes, keepdims=True)
    return z / nonzero_norm(square, squares, varies)
