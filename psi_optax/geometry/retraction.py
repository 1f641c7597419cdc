r"""Retraction of steps of the weights: onto the sphere, or along a geodesic.

`retract` takes a step u of degree 1 and of any size, and measures the norm of
the sum w + u. The closed form of `step` with \(c = 1/|w|\) is the same map, but
its norm cancels if w + u is short: in float32 it is off by up to 13 % at
\(|w + u| = 10^{-3}\,|w|\).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from psi_optax.geometry._scheduling import after, measure_sequentially
from psi_optax.geometry.maps import rescaling_factor
from psi_optax.geometry.numerics import replace_value, safe_divide, safe_sqrt
from psi_optax.geometry.rounding import (
    ON_SPHERE_TOLERANCE,
    reachable,
    rounded_update,
    rounding_shrinkage_limit,
)
from psi_optax.geometry.step import step
from psi_optax.geometry.sums import step_sums
from psi_optax.geometry.update_parts import (
    UpdateParts,
    remember_parts,
    tangent_square,
)
from psi_optax.groups.plan import Plan
from psi_optax.groups.reductions import to_accumulator
from psi_optax.groups.types import Leaves, Scalars


class RetractionSums(NamedTuple):
    """Sums over groups of weights w and steps u.

    Attributes:
        square: the squared norm of w.
        moved: the squared norm of w + u.
        length: the squared norm of u.
    """

    square: Scalars
    moved: Scalars
    length: Scalars


def retract(
    plan: Plan,
    w: Leaves,
    u: Leaves,
    radius: Scalars | None,
    *,
    retraction: str = "projection",
) -> Leaves:
    r"""Move every group along a step of its weights; return what to add to w.

    "projection" maps w + u to \(R\,(w+u)/|w+u|\), which agrees with the
    exponential map to second order in a tangent step. A group with
    \(w + u = 0\) arrives at zero. "exponential" follows the geodesic along the
    tangent part of u, for its length. The rules of `step` hold for groups of
    norm zero, zero steps and small spheres.

    Args:
        plan: the groups.
        w: the weights.
        u: steps of the weights (degree 1).
        radius: of each group's sphere; None for the current norm.
        retraction: "projection" or "exponential".

    Returns:
        The rounded new weights minus the old, in the dtype of w.
    """
    if retraction == "exponential":
        u, sums = measure_sequentially(plan, w, u, step_sums)
        inverse = jax.tree.map(_inverse_root, sums.square)
        return step(
            plan, w, u, inverse, radius, retraction="exponential", sums=sums
        )
    u, found = measure_sequentially(plan, w, u, retraction_sums)
    factor = retraction_factor(plan, w, u, radius, found)
    return apply_retraction_factor(plan, w, u, factor, found)


def retraction_sums(
    plan: Plan, w: Leaves, u: Leaves, square: Scalars | None = None
) -> RetractionSums:
    """Return the sums of a retraction.

    Args:
        plan: the groups.
        w: the weights.
        u: steps of the weights.
        square: the groups' squared norms, if they are known.
    """
    square = plan.dot(w, w) if square is None else square
    moved = _sum(w, u)
    return RetractionSums(square, plan.dot(moved, moved), plan.dot(u, u))


def retraction_factor(
    plan: Plan,
    w: Leaves,
    u: Leaves,
    radius: Scalars | None,
    sums: RetractionSums,
) -> Scalars:
    """Return the factor that brings w + u to the sphere of each group."""
    factors: Scalars = {}
    for name, part in plan.parts().items():
        old = safe_sqrt(sums.square[name])
        target = reachable(
            old if radius is None else radius[name],
            old,
            rounding_shrinkage_limit(
                x[p].dtype for p in part.paths for x in (w, u)
            ),
        )
        moved = safe_sqrt(sums.moved[name])
        factors[name] = _factor(target, moved, old, sums.length[name])
    return factors


def apply_retraction_factor(
    plan: Plan, w: Leaves, u: Leaves, factor: Scalars, sums: RetractionSums
) -> Leaves:
    """Return the update to factor times w + u; zero for a norm of zero."""
    target = jax.tree.map(
        _scaled_sum,
        w,
        u,
        plan.broadcast(factor),
        plan.broadcast(sums.square),
    )
    moved = rounded_update(w, target)

    def parts(moved: Leaves) -> tuple[Leaves, UpdateParts]:
        # The inner product would follow from the sums with the rounding of the
        # squared norm of w, which says nothing of short steps.
        inner = plan.dot(w, u)
        return _after_each(plan, moved, inner), _parts(inner, factor, sums)

    remember_parts(plan, w, moved, parts)
    return moved


def _after_each(plan: Plan, u: Leaves, known: Scalars) -> Leaves:
    """Return u, used after w was read: otherwise a step in place copies w."""
    return {
        leaf.path: after(u[leaf.path], known[leaf.name]) for leaf in plan.leaves
    }


def _parts(
    inner: Scalars, factor: Scalars, sums: RetractionSums
) -> UpdateParts:
    """Return the parts of the update to factor times w + u."""
    norms = jax.tree.map(safe_sqrt, sums.square)
    before = jax.tree.map(safe_divide, inner, norms)
    radial = jax.tree.map(_radial_part, norms, before, factor)
    tangent = jax.tree.map(_tangent_part, norms, before, factor, sums.length)
    return UpdateParts(norms, radial, tangent)


def _radial_part(
    norm: jax.Array, radial: jax.Array, factor: jax.Array
) -> jax.Array:
    change = (factor - 1) * norm + factor * radial
    return jnp.where(norm == 0, 0, change)


def _tangent_part(
    norm: jax.Array, radial: jax.Array, factor: jax.Array, length: jax.Array
) -> jax.Array:
    change = factor * (factor * tangent_square(length, radial))
    return jnp.where(norm == 0, 0, change)


def _scaled_sum(
    w: jax.Array, u: jax.Array, factor: jax.Array, square: jax.Array
) -> jax.Array:
    # XLA would write w + u to memory, if it were also what is measured.
    u = jnp.where(square == 0, 0, to_accumulator(u))
    return jnp.where(square == 0, 1, factor) * (to_accumulator(w) + u)


def _sum(w: Leaves, u: Leaves) -> Leaves:
    return jax.tree.map(
        lambda x, y: to_accumulator(x) + to_accumulator(y), w, u
    )


def _inverse_root(square: jax.Array) -> jax.Array:
    """Return one over the root, and zero for zero."""
    root = safe_sqrt(square)
    return safe_divide(jnp.ones_like(root), root)


def _factor(
    radius: jax.Array, moved: jax.Array, old: jax.Array, square: jax.Array
) -> jax.Array:
    """Return radius / moved; the value 1 for a zero step on the sphere.

    Its derivatives are those of the quotient.
    """
    factor = rescaling_factor(radius, moved)
    off = jnp.abs(safe_divide(radius - old, old))
    still = (square == 0) & (off <= ON_SPHERE_TOLERANCE)
    return replace_value(factor, jnp.where(still, 1, factor))
