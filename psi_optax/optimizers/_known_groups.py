"""Norms that a state knows, because the last step left them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from psi_optax import geometry
from psi_optax.geometry._scheduling import apart, barrier, runs_on_one_device
from psi_optax.geometry.rounding import (
    reachable,
    rounding_shrinkage_limit,
)
from psi_optax.groups import Leaves, Plan, Scalars
from psi_optax.transforms.state_checks import (
    state_or_placeholder,
    stored_scalars,
)

# Of one weight in a step of other code that may go unseen.
_TOLERANCE = 0.01


class KnownGroups(NamedTuple):
    """What a step of `psi_sgd` leaves for the next one.

    Each is {group name: array of the group shape}.

    Attributes:
        radial: the inner product of the direction of the weights and the
            momentum; None without momentum.
        sample: one weight of each group, by which weights are recognized that
            other code has changed. NaN if nothing is known.
    """

    radial: Any
    sample: Any


def unknown_groups(plan: Plan, w: Leaves, *, momentum: bool) -> KnownGroups:
    """Return a state for weights of any norm and a momentum of zero."""
    zeros = jax.tree.map(jnp.zeros_like, plan.dot(w, w))
    unknown = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), zeros)
    return KnownGroups(
        state_or_placeholder(zeros) if momentum else None,
        state_or_placeholder(unknown),
    )


def find_norms(
    plan: Plan, w: Leaves, known: KnownGroups | None, radius: Scalars
) -> tuple[Scalars, Scalars]:
    """Return the norms of groups, and the radii within their reach.

    Both are the radii of the spheres, unless other code has changed weights.

    All groups are measured if the sample of one of them is off by more than
    1 %, or zero. So a change of all weights is seen, and that of a part of a
    group unless it spares the sample. On several devices, where the check would
    be a message, all groups are measured at every step.

    Args:
        plan: the groups.
        w: the weights.
        known: left by the last step, if anything.
        radius: of each group's sphere.
    """
    if known is None or not plan.leaves or not runs_on_one_device():
        return _measure(plan, w, radius)
    sample = stored_scalars("samples", known.sample, plan)
    now = plan.first_weights(w)
    near = [_is_near(now[name], sample[name]).reshape(-1) for name in now]
    return jax.lax.cond(
        jnp.all(jnp.concatenate(near)),
        lambda _: (radius, radius),
        lambda weights: _measure(plan, weights, radius),
        w,
    )


def relearn(
    known: KnownGroups, plan: Plan, w: Leaves, momentum: Leaves
) -> KnownGroups:
    """Return the knowledge of a momentum that another run has left."""
    radial = jax.tree.map(
        geometry.safe_divide, plan.dot(w, momentum), geometry.norm(plan, w)
    )
    return known._replace(
        radial=jax.tree.map(
            lambda new, old: new.astype(old.dtype), radial, known.radial
        )
    )


def radial_parts(
    plan: Plan,
    w: Leaves,
    d: Leaves,
    norm: Scalars,
    known: KnownGroups | None,
    momentum: jax.typing.ArrayLike | None,
) -> Scalars:
    """Return the radial parts of directions d: what is left of the last.

    A state without knowledge, of an earlier version, has them measured.
    """
    if momentum is None:
        return jax.tree.map(jnp.zeros_like, norm)
    if known is None:
        return jax.tree.map(geometry.safe_divide, plan.dot(w, d), norm)
    before = stored_scalars("radial parts", known.radial, plan)
    return jax.tree.map(lambda b: jnp.asarray(momentum, b.dtype) * b, before)


def _measure(plan: Plan, w: Leaves, radius: Scalars) -> tuple[Scalars, Scalars]:
    """Measure the norms; see `reachable` for the radii."""
    norm = jax.tree.map(geometry.safe_sqrt, barrier(plan.dot(w, w)))
    ratios = {
        name: rounding_shrinkage_limit(leaf.dtype for leaf in part.leaves)
        for name, part in plan.parts().items()
    }
    return norm, jax.tree.map(reachable, radius, norm, ratios)


def _is_near(now: jax.Array, before: jax.Array) -> jax.Array:
    """Return whether samples agree; a zero or NaN never does."""
    return jnp.abs(now - before) < _TOLERANCE * jnp.abs(before)


def learn_groups(
    plan: Plan,
    known: KnownGroups | None,
    new: Leaves,
    radius: Scalars,
    reached: Scalars,
    coefficients: dict[str, geometry.Coefficients],
) -> KnownGroups:
    """Return what the next step can know.

    Args:
        plan: the groups.
        known: of this step.
        new: the new weights.
        radius: of each group's sphere.
        reached: the norms of the new weights.
        coefficients: of the step.
    """
    radial = {name: c.radial for name, c in coefficients.items()}
    if runs_on_one_device():
        sample = jax.tree.map(
            lambda x, r, s: jnp.where(r == s, x, jnp.nan),
            plan.first_weights(jax.tree.map(apart, new)),
            radius,
            reached,
        )
    elif known is None:
        sample = jax.tree.map(lambda r: jnp.full_like(r, jnp.nan), radius)
    else:
        sample = known.sample
    return KnownGroups(
        state_or_placeholder(radial), state_or_placeholder(sample)
    )
