"""Groups of mean zero and variance one."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psi_optax import geometry
from psi_optax._validation import check_choice, check_nonnegative, check_number
from psi_optax.groups import Groups, Plan, Scalars, Tree, make_plan
from psi_optax.groups.types import Leaves
from psi_optax.reparametrize._centering import center
from psi_optax.transforms.contract import cast_like


def standardized(
    params: Tree,
    groups: Groups,
    *,
    gain: ArrayLike | None = None,
    epsilon: float = 0.0,
    ddof: int = 0,
) -> Tree:
    r"""Give every group mean zero and variance one: weight standardization.

    For groups of n weights,

    \[w = (v - \bar v)/\sigma, \qquad
      \sigma^2 = \tfrac{1}{n - \mathrm{ddof}} \sum (v - \bar v)^2 + \epsilon,\]

    times \(g/\sqrt n\) for a gain g: scaled weight standardization. Without an
    epsilon and with ddof 0, `centered` with gain \(\sqrt n\), or g, is the
    same.

    Args:
        params: arrays.
        groups: scale groups in any form.
        gain: g, a number; None for variance one.
        epsilon: a nonnegative Python number, added to the variance. It makes
            the loss depend on the norm of v, and is not needed for groups of
            equal weights.
        ddof: 0, or 1 for the variance of torch's `std`.

    Returns:
        A tree like params. Ordinary parameters are unchanged. Groups of equal
        weights, up to rounding, are zero (with an epsilon: of that rounding
        over its root), and derivatives there are finite.

    Raises:
        TypeError: the gain or the epsilon is not a number.
        ValueError: groups do not fit params; a negative epsilon; another ddof;
            groups of one weight with ddof 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> w = standardized(jnp.array([3.0, 7.0]), ScaleGroup(0))
        >>> print(jnp.round(w, 4))
        [-1.  1.]

    References:
        Qiao et al., [Micro-batch training with batch-channel normalization and
        weight standardization](https://arxiv.org/abs/1903.10520), 2019; Brock,
        De and Smith, [Characterizing signal propagation to close the
        performance gap in unnormalized
        ResNets](https://arxiv.org/abs/2101.08692), ICLR 2021, for the gain.
    """
    check_nonnegative("epsilon", epsilon)
    check_choice("ddof", ddof, (0, 1))
    if gain is not None:
        check_number("gain", gain)
    plan = make_plan(groups, params)
    _check_sizes(plan, ddof)
    w = plan.select(params)
    rest, deviations = _deviations(plan, w, float(epsilon), ddof)
    gains = plan.full(1.0 if gain is None else gain)
    if gain is not None:
        gains = {
            name: g / math.sqrt(plan.sizes[name]) for name, g in gains.items()
        }
    factors = jax.tree.map(jnp.divide, gains, deviations)
    moved = {
        path: rest[path] * factor
        for path, factor in plan.broadcast(factors).items()
    }
    return plan.merge(params, cast_like(moved, w))


def _deviations(
    plan: Plan, w: Leaves, epsilon: float, ddof: int
) -> tuple[Leaves, Scalars]:
    """Return groups without their means, and their standard deviations."""
    if not epsilon:
        rest, norms, _ = center(plan, w)
        return rest, {
            name: norm / math.sqrt(plan.sizes[name] - ddof)
            for name, norm in norms.items()
        }
    rest = geometry.center(plan, w)
    return rest, {
        name: jnp.sqrt(square / (plan.sizes[name] - ddof) + epsilon)
        for name, square in plan.dot(rest, rest).items()
    }


def _check_sizes(plan: Plan, ddof: int) -> None:
    """Require more weights in a group than are subtracted from their number.

    Raises:
        ValueError: ddof is 1, and groups have one weight.
    """
    for leaf in plan.leaves:
        if ddof and plan.sizes[leaf.name] <= ddof:
            raise ValueError(
                f"{leaf}: its groups have {plan.sizes[leaf.name]} weight, and"
                f" no variance with ddof={ddof}: choose ddof=0, or state no"
                " group here."
            )
