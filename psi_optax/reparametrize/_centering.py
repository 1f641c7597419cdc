"""Groups without their means, and norms of them that are never zero."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from psi_optax import geometry
from psi_optax.groups import Leaves, Plan, Scalars

# The mean is off by a few roundings of it, and so is every difference.
_ROUNDINGS = 64


class Centered(NamedTuple):
    """Centered groups.

    Attributes:
        rest: the groups without their means; zeros where these are rounding
            errors, as in a group of equal weights.
        norms: the norms of `rest`, but those of the groups with their means
            where `rest` is zero, and 1 where these are zero too.
        varies: 1 for each group whose rest is not zero, else 0.
    """

    rest: Leaves
    norms: Scalars
    varies: Scalars


def center(plan: Plan, w: Leaves) -> Centered:
    """Return groups without their means."""
    moved = geometry.center(plan, w)
    whole, square = plan.dot(w, w), plan.dot(moved, moved)
    varies = jax.tree.map(_exceeds_rounding, square, whole)
    factors = plan.broadcast(varies)
    return Centered(
        {path: x * factors[path] for path, x in moved.items()},
        jax.tree.map(nonzero_norm, square, whole, varies),
        varies,
    )


def _exceeds_rounding(square: jax.Array, whole: jax.Array) -> jax.Array:
    """Return 1 where a centered group is more than rounding error, else 0."""
    smallest = _ROUNDINGS * float(jnp.finfo(whole.dtype).eps)
    # Not `>`: a group that is NaN stays NaN.
    return 1 - (square <= smallest**2 * whole).astype(whole.dtype)


def nonzero_norm(
    square: jax.Array, whole: jax.Array, varies: jax.Array
) -> jax.Array:
    """Return a nonzero norm whose derivative is finite.

    Both squares scale alike, so that the norm scales with the weights wherever
    these are not zero, and the finder proves it.

    Args:
        square: squared norms of parts of groups.
        whole: squared norms of the groups.
        varies: zero where the latter replace the former.
    """
    square = jnp.where(varies == 0, whole, square)
    # Nothing becomes zero silently where squares overflow.
    square = jnp.where(jnp.isinf(square), jnp.nan, square)
    return jnp.sqrt(jnp.where(whole == 0, 1, square))
