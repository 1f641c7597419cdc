"""Radial and tangent parts of updates: measured, or known from a step."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from psi_optax.geometry._last_step import recall, remember
from psi_optax.geometry._scheduling import read_first
from psi_optax.geometry.maps import norm
from psi_optax.geometry.numerics import safe_divide
from psi_optax.groups.plan import Plan
from psi_optax.groups.reductions import accumulation_dtype
from psi_optax.groups.types import Leaves, Scalars


class UpdateParts(NamedTuple):
    """Lengths of weights w and the parts of their updates u.

    Each is {group name: array of the group shape}.

    Attributes:
        norm: of w.
        radial: the component of u along w; zero for a norm of zero.
        tangent: the squared norm of the rest of u.
    """

    norm: Scalars
    radial: Scalars
    tangent: Scalars

    def map(self, function: Callable[[Scalars], Scalars]) -> "UpdateParts":
        """Return the parts with a function applied to each of them."""
        return UpdateParts(*map(function, self))


def remember_parts(
    plan: Plan,
    w: Leaves,
    u: Leaves,
    parts: Callable[[Leaves], tuple[Leaves, UpdateParts]],
) -> None:
    """Let `update_parts` of the very arrays u return `parts(u)`.

    Those of weights below float32 are not remembered: the rounding of the new
    weights is a large part of their updates, which a step does not know.

    Args:
        plan: the groups.
        w: the weights.
        u: updates that a step returns.
        parts: maps u, which it must not hold, to the same bits and the parts,
            from scalars of the step. They may differ from those of u by the
            rounding of the new weights.
    """
    if all(x.dtype == accumulation_dtype(x.dtype) for x in w.values()):
        remember(plan, w, u, parts)


def update_parts(
    plan: Plan, w: Leaves, u: Leaves
) -> tuple[Leaves, UpdateParts]:
    """Return updates, and their parts.

    Measuring takes three inner products, and makes a compiled step store the
    updates. The parts of updates that are known take neither.

    Args:
        plan: the groups.
        w: the weights.
        u: the updates.

    Returns:
        The bits of u, and the parts. If they are measured, u is used after it.
    """
    known = recall(plan, w, u)
    if known is not None:
        return known(u)
    parts = measure_parts(plan, w, u)
    return read_first(plan, u, parts.tangent), parts


def measure_parts(plan: Plan, w: Leaves, u: Leaves) -> UpdateParts:
    """Return the parts of updates u by three inner products."""
    norms = norm(plan, w)
    radial = jax.tree.map(safe_divide, plan.dot(w, u), norms)
    tangent = jax.tree.map(tangent_square, plan.dot(u, u), radial)
    return UpdateParts(norms, radial, tangent)


def tangent_square(square: jax.Array, radial: jax.Array) -> jax.Array:
    """Return the squared length of the tangent part of a vector.

    Args:
        square: its squared length.
        radial: its radial part.
    """
    return jnp.maximum(square - radial * radial, 0)
