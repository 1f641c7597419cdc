"""Norms that a state knows, because the last step left them."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from psi_optax import geometry
from psi_optax.geometry._scheduling import apart, barrier, checks_weights
from psi_optax.geometry.rounding import (
    reachable,
    rounding_shrinkage_limit,
)
from psi_optax.groups import Leaves, Plan, Scalars
from psi_optax.groups.paths import leaves_with_paths
from psi_optax.transforms.state_checks import (
    find_states,
    state_or_placeholder,
    stored_scalars,
)

# Of one weight in a step of other code that may go unseen.
_TOLERANCE = 0.01

# Of a learning rate, since radial parts were measured. The error of one is that
# of a norm over the rate at which it was learned.
_GROWTH = 2.0

# Masks in one function. The time to compile it grows faster than their number.
_BLOCK = 64


class KnownGroups(NamedTuple):
    """Facts about groups that a step of `psi_sgd` leaves for the next one.

    Each is {group name: array of the group shape}.

    Attributes:
        radial: the inner product of the direction of the weights and the
            momentum; None without momentum.
        sample: one weight of each group, by which weights are recognized that
            other code has changed. Zero, which never agrees, if nothing is
            known: `jax.debug_nans` would stop at a NaN.
        rate: the least learning rate since radial parts were measured, of shape
            (), infinite if nothing is known; None without momentum.
    """

    radial: Any
    sample: Any
    rate: Any


class FoundNorms(NamedTuple):
    """Facts about groups before a step, each {group name: array}.

    Attributes:
        norm: of the weights.
        reached: the radii of spheres within reach of the norm.
        radial: the inner product of the direction of the weights and the last
            momentum; None without momentum, or if it is not known.
        count: number of weights in a group, of shape ().
        rate: for `KnownGroups`.
    """

    norm: Scalars
    reached: Scalars
    radial: Scalars | None
    count: Scalars
    rate: jax.Array | None


def unknown_groups(plan: Plan, w: Leaves, *, momentum: bool) -> KnownGroups:
    """Return a state for weights of any norm and a momentum of zero."""
    square = plan.dot(w, w)
    # Two arrays: buffers that are donated must not be one.
    radial, sample = (jax.tree.map(jnp.zeros_like, square) for _ in range(2))
    return KnownGroups(
        state_or_placeholder(radial) if momentum else None,
        state_or_placeholder(sample),
        jnp.full([], jnp.inf, jnp.float32) if momentum else None,
    )


def momentum_leaves(plan: Plan, state: Any) -> Leaves | None:
    """Return the momentum of groups in a state; None if it has none."""
    for found in find_states(state, optax.TraceState):
        trace = {
            x.path: x.leaf
            for x in leaves_with_paths(found.trace)
            if not x.is_placeholder  # As in the trace of ordinary parameters.
        }
        if trace.keys() >= set(plan.paths):
            return {path: trace[path] for path in plan.paths}
    return None


def find_norms(
    plan: Plan,
    w: Leaves,
    momentum: Leaves | None,
    known: KnownGroups | None,
    radius: Scalars,
    rate: jax.typing.ArrayLike,
) -> FoundNorms:
    """Return norms, radii within reach, radial parts and numbers of weights.

    Norms and radii are those of the spheres, unless other code has changed
    weights.

    All groups are measured if the sample of one of them is off by more than
    1 %, or zero. So a change of all weights is seen, and that of a part of a
    group unless it spares the sample. Those that have changed have the radial
    part of their momentum measured, and all do if the learning rate has
    doubled: the rounding of weights, or a change that was not seen,
    makes an error of the radial part of that size over the rate. On several
    devices and on accelerators norms are measured at every step, see
    `checks_weights`.

    Args:
        plan: the groups.
        w: the weights.
        momentum: of the last step, if any.
        known: left by the last step, if anything.
        radius: of each group's sphere.
        rate: the learning rate of this step, of either sign.
    """
    now = jax.lax.stop_gradient(jnp.abs(jnp.asarray(rate, jnp.float32)))
    if known is None or not plan.leaves or not checks_weights():
        counts = _count_by_name(plan, _counts(plan))
        norm, reached = _measure(plan, w, radius)
        return FoundNorms(norm, reached, _radial(plan, known), counts, now)
    near, steady = _are_near(plan, w, known), _is_steady(known, now)
    before = _radial(plan, known)
    right = {name: x & steady for name, x in near.items()}
    m = None if before is None else momentum
    # XLA compiles equal functions once, if no constant in them differs. It does
    # not look for constants in the branches of a conditional.
    counts = _counts(plan)
    norm, reached, before, counts = jax.lax.cond(
        _all(list(near.values())) & steady,
        lambda *_: (radius, radius, before, counts),
        lambda w, m: (*_measure_all(plan, w, m, radius, before, right), counts),
        w,
        m,
    )
    if known.rate is not None:
        now = jnp.where(steady, jnp.minimum(now, known.rate), now)
    return FoundNorms(norm, reached, before, _count_by_name(plan, counts), now)


def _radial(plan: Plan, known: KnownGroups | None) -> Scalars | None:
    if known is None or known.radial is None:
        return None
    stored = stored_scalars("radial parts", known.radial, plan)
    return {name: stored[name] for name in plan.group_shapes}


def _are_near(plan: Plan, w: Leaves, known: KnownGroups) -> Scalars:
    """Return masks of the groups whose samples agree."""
    sample = stored_scalars("samples", known.sample, plan)
    return {
        name: _is_near(now, sample[name])
        for name, now in plan.first_weights(w).items()
    }


def _is_steady(known: KnownGroups, rate: jax.Array) -> jax.Array:
    """Return whether the rate has not doubled; it may without momentum."""
    return rate <= _GROWTH * (jnp.inf if known.rate is None else known.rate)


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


def _measure_all(
    plan: Plan,
    w: Leaves,
    momentum: Leaves | None,
    radius: Scalars,
    radial: Scalars | None,
    right: Scalars,
) -> tuple[Scalars, Scalars, Scalars | None]:
    """Measure the norms, and radial parts of a momentum if there is one.

    Those of gradients are not known exactly. A group whose radial part is right
    keeps it, so that its steps do not depend on the changes of others.
    """
    norm, reached = _measure(plan, w, radius)
    if radial is None or momentum is None:
        return norm, reached, radial
    found = _measure_radial(plan, w, momentum, norm)
    return norm, reached, jax.tree.map(jnp.where, right, radial, found)


def _measure_radial(
    plan: Plan, w: Leaves, momentum: Leaves, norm: Scalars
) -> Scalars:
    dots = plan.dot(jax.tree.map(apart, w), jax.tree.map(apart, momentum))
    return jax.tree.map(geometry.safe_divide, dots, norm)


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
    radial = _measure_radial(plan, w, momentum, geometry.norm(plan, w))
    return known._replace(
        radial=jax.tree.map(
            lambda new, old: new.astype(old.dtype), radial, known.radial
        )
    )


def radial_parts(
    plan: Plan,
    w: Leaves,
    d: Leaves,
    found: FoundNorms,
    momentum: jax.typing.ArrayLike | None,
) -> Scalars:
    """Return the radial parts of directions d: what is left of the last.

    A state without knowledge, of an earlier version, has them measured.
    """
    if momentum is None:
        return jax.tree.map(jnp.zeros_like, found.norm)
    if found.radial is None:
        return _measure_radial(plan, w, d, found.norm)
    return jax.tree.map(
        lambda b: jax.lax.mul(b, jnp.full_like(b, momentum)), found.radial
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
    found: FoundNorms,
    radial: Scalars,
) -> KnownGroups:
    """Return what the next step can know.

    Args:
        plan: the groups.
        known: of this step.
        new: the new weights.
        radius: of each group's sphere.
        found: before this step; its radii are the norms of the new weights.
        radial: the radial parts of the directions there.
    """
    if checks_weights():
        sample = jax.tree.map(
            _sample,
            plan.first_weights(jax.tree.map(apart, new)),
            radius,
            found.reached,
        )
    elif known is None:
        sample = jax.tree.map(jnp.zeros_like, radius)
    else:
        sample = known.sample
    return KnownGroups(
        state_or_placeholder(radial), state_or_placeholder(sample), found.rate
    )
