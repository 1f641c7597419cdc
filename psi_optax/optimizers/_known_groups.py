"""Norms that a state knows, because the last step left them."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from psi_optax import geometry
from psi_optax.geometry._scheduling import apart, barrier, checks_weights
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

# Masks in one function. The time to compile it grows faster than their number.
_BLOCK = 64


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


class FoundNorms(NamedTuple):
    """Norms of groups, each {group name: array}.

    Attributes:
        norm: of the weights.
        reached: the radii of spheres within reach of the norm.
        count: number of weights in a group, of shape ().
    """

    norm: Scalars
    reached: Scalars
    count: Scalars


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
) -> FoundNorms:
    """Return the norms of groups, radii within reach, and numbers of weights.

    Norms and radii are those of the spheres, unless other code has changed
    weights.

    All groups are measured if the sample of one of them is off by more than
    1 %, or zero. So a change of all weights is seen, and that of a part of a
    group unless it spares the sample. On several devices and on accelerators
    all groups are measured at every step, see `checks_weights`.

    Args:
        plan: the groups.
        w: the weights.
        known: left by the last step, if anything.
        radius: of each group's sphere.
    """
    if known is None or not plan.leaves or not checks_weights():
        counts = _count_by_name(plan, _counts(plan))
        return FoundNorms(*_measure(plan, w, radius), counts)
    sample = stored_scalars("samples", known.sample, plan)
    now = plan.first_weights(w)
    near = jax.tree.map(_is_near, now, {name: sample[name] for name in now})
    # XLA compiles equal functions once, if no constant in them differs. It does
    # not look for constants in the branches of a conditional.
    counts = _counts(plan)
    norm, reached, counts = jax.lax.cond(
        _all(list(near.values())),
        lambda _: (radius, radius, counts),
        lambda weights: (*_measure(plan, weights, radius), counts),
        w,
    )
    return FoundNorms(norm, reached, _count_by_name(plan, counts))


def _counts(plan: Plan) -> dict[tuple[Any, int], jax.Array]:
    """Return the numbers of weights in a group, by dtype and number."""
    kinds = {(plan.dtypes[name], n) for name, n in plan.sizes.items()}
    return {
        (str(dtype), n): jnp.asarray(max(n, 1), dtype) for dtype, n in kinds
    }


def _count_by_name(
    plan: Plan, counts: dict[tuple[Any, int], jax.Array]
) -> Scalars:
    return {
        name: counts[str(plan.dtypes[name]), n]
        for name, n in plan.sizes.items()
    }


def _measure(plan: Plan, w: Leaves, radius: Scalars) -> tuple[Scalars, Scalars]:
    """Measure the norms; see `reachable` for the radii."""
    square = barrier(plan.dot(w, w))
    found = {
        name: _norm_and_reach(
            square[name],
            radius[name],
            rounding_shrinkage_limit(leaf.dtype for leaf in part.leaves),
        )
        for name, part in plan.parts().items()
    }
    return (
        {name: norm for name, (norm, _) in found.items()},
        {name: reached for name, (_, reached) in found.items()},
    )


@functools.partial(jax.jit, static_argnums=2)
def _norm_and_reach(
    square: jax.Array, radius: jax.Array, ratio: float
) -> tuple[jax.Array, jax.Array]:
    norm = geometry.safe_sqrt(square)
    return norm, reachable(radius, norm, ratio)


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
    return jax.tree.map(
        lambda b: jax.lax.mul(b, jnp.full_like(b, momentum)), before
    )


@jax.jit
def _is_near(now: jax.Array, before: jax.Array) -> jax.Array:
    """Return whether samples agree; a zero or NaN never does."""
    return jnp.abs(now - before) < _TOLERANCE * jnp.abs(before)


@jax.jit
def _sample(x: jax.Array, radius: jax.Array, reached: jax.Array) -> jax.Array:
    """Return samples: zeros, which never agree, where groups are off."""
    return x * (radius == reached).astype(x.dtype)


def _all(masks: list[jax.Array]) -> jax.Array:
    """Return whether all elements of all masks are true.

    XLA compiles each function of each shape once. Here many masks share one,
    where a reduction of each would be two for each shape.
    """
    flat = sorted((x.reshape(-1) for x in masks), key=lambda x: x.size)
    blocks = (flat[i : i + _BLOCK] for i in range(0, len(flat), _BLOCK))
    return functools.reduce(jax.lax.bitwise_and, map(_all_of_block, blocks))


def _all_of_block(masks: list[jax.Array]) -> jax.Array:
    longest = max(x.size for x in masks)
    same: dict[int, jax.Array] = {}
    for x in masks:
        same[x.size] = same[x.size] & x if x.size in same else x
    padded = (
        jax.lax.pad(x, True, [(0, longest - size, 0)])
        for size, x in same.items()
    )
    return jnp.all(functools.reduce(jax.lax.bitwise_and, padded))


def learn_groups(
    plan: Plan,
    known: KnownGroups | None,
    new: Leaves,
    radius: Scalars,
    reached: Scalars,
    radial: Scalars,
) -> KnownGroups:
    """Return what the next step can know.

    Args:
        plan: the groups.
        known: of this step.
        new: the new weights.
        radius: of each group's sphere.
        reached: the norms of the new weights.
        radial: the radial parts of the directions there.
    """
    if checks_weights():
        sample = jax.tree.map(
            _sample,
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
