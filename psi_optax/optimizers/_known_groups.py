"""Norms that a state knows, because the last step left them."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from psi_optax import geometry
from psi_optax.geometry._scheduling import apart, barrier, checks_weights
from psi_optax.geometry.rounding import (
    SUM_ROUNDINGS,
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


class KnownGroups(NamedTuple):
    """Facts about groups that a step of `psi_sgd` leaves for the next one.

    Attributes:
        radial: the inner product of the direction of the weights and the
            momentum, {group name: array of the group shape}; None without
            momentum.
        sample: one weight of each group, in one vector, by which weights are
            recognized that other code has changed. Zeros, which never agree, if
            nothing is known: `jax.debug_nans` would stop at a NaN.
        rate: the least learning rate since radial parts were measured, of shape
            (), infinite if nothing is known; None without momentum.
    """

    radial: Any
    sample: Any
    rate: Any


class FoundNorms(NamedTuple):
    """Facts about groups before a step, most as {group name: array}.

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
    radial = jax.tree.map(jnp.zeros_like, plan.dot(w, w))
    return KnownGroups(
        state_or_placeholder(radial) if momentum else None,
        _no_sample(plan, w),
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

    All norms are measured if the sample of one group is off by more than 1 %,
    or zero; one that is off its radius by rounding counts as the radius. So a
    change of all weights is seen, and that of a part of a group unless it
    spares the sample. Those that have changed have the radial part of their
    momentum measured as well, and all do if the learning rate has
    doubled: the rounding of weights, or a change that was not seen, makes an
    error of the radial part of its own size over the rate. On several
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
        before = None if known is None else known.radial
        return FoundNorms(norm, reached, before, counts, now)
    near = _is_near(_sample(plan, w), known.sample)
    steady = _is_steady(known, now)
    right = near & steady
    before = known.radial
    m = None if before is None else momentum
    # XLA compiles equal functions once, if no constant in them differs. It does
    # not look for constants in the branches of a conditional.
    counts = _counts(plan)
    norm, reached, before, counts = jax.lax.cond(
        jnp.all(right),
        lambda *_: (radius, radius, before, counts),
        lambda w, m: (*_measure_all(plan, w, m, radius, before, right), counts),
        w,
        m,
    )
    if known.rate is not None:
        now = jnp.where(steady, jnp.minimum(now, known.rate), now)
    counts = _count_by_name(plan, counts)
    return FoundNorms(norm, reached, before, counts, now)


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
    found = {}
    for name, part in plan.parts().items():
        dtypes = [leaf.dtype for leaf in part.leaves]
        coarsest = max(float(jnp.finfo(dtype).eps) for dtype in dtypes)
        found[name] = _norm_and_reach(
            square[name],
            radius[name],
            rounding_shrinkage_limit(dtypes),
            coarsest + SUM_ROUNDINGS * float(jnp.finfo(plan.dtypes[name]).eps),
        )
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
    right: jax.Array,
) -> tuple[Scalars, Scalars, Scalars | None]:
    """Measure the norms, and radial parts of a momentum if there is one.

    Those of gradients are not known exactly. A group whose radial part is right
    keeps it, so that its steps do not depend on the changes of others.
    """
    norm, reached = _measure(plan, w, radius)
    if radial is not None and momentum is not None:
        found = _measure_radial(plan, w, momentum, norm)
        radial = jax.tree.map(jnp.where, _unravel(plan, right), radial, found)
    return norm, reached, radial


def _measure_radial(
    plan: Plan, w: Leaves, momentum: Leaves, norm: Scalars
) -> Scalars:
    dots = plan.dot(jax.tree.map(apart, w), jax.tree.map(apart, momentum))
    return jax.tree.map(geometry.safe_divide, dots, norm)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _norm_and_reach(
    square: jax.Array, radius: jax.Array, ratio: float, rounding: float
) -> tuple[jax.Array, jax.Array]:
    norm = geometry.safe_sqrt(square)
    # As where norms are known: bits do not depend on the changes of others.
    is_radius = jnp.abs(norm - radius) <= rounding * radius
    norm = geometry.replace_value(norm, jnp.where(is_radius, radius, norm))
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


def _is_near(now: jax.Array, before: jax.Array) -> jax.Array:
    """Return whether samples agree; a zero or NaN never does."""
    return jnp.abs(now - before) < _TOLERANCE * jnp.abs(before)


def _sample(plan: Plan, w: Leaves) -> jax.Array:
    """Return one weight of each group, in one vector."""
    return _ravel(plan, plan.first_weights(w))


def _no_sample(plan: Plan, w: Leaves) -> jax.Array:
    """Return zeros, on all devices of the weights if they are concrete."""
    count = sum(map(math.prod, plan.group_shapes.values()))
    meshes = [
        x.sharding.mesh
        for x in w.values()
        if not isinstance(x, jax.core.Tracer)
        and isinstance(x.sharding, NamedSharding)
    ]
    place = NamedSharding(meshes[0], PartitionSpec()) if meshes else None
    return jnp.zeros(count, _widest(plan), device=place)


def _ravel(plan: Plan, scalars: Scalars) -> jax.Array:
    """Return scalars of groups as one vector."""
    found = [scalars[name].reshape(-1) for name in plan.group_shapes]
    dtype = _widest(plan)
    return jnp.concatenate(
        [jnp.zeros(0, dtype), *(x.astype(dtype) for x in found)]
    )


def _unravel(plan: Plan, vector: jax.Array) -> Scalars:
    """Return the scalars of a vector."""
    found: Scalars = {}
    start = 0
    for name, shape in plan.group_shapes.items():
        stop = start + math.prod(shape)
        found[name] = jax.lax.slice(vector, [start], [stop]).reshape(shape)
        start = stop
    return found


def _widest(plan: Plan) -> jnp.dtype:
    """Return the widest dtype of scalars, float32 at least."""
    dtypes = {jnp.dtype(jnp.float32), *plan.dtypes.values()}
    return max(dtypes, key=lambda x: x.itemsize)


def learn_groups(
    stacks: geometry.Stacks,
    known: KnownGroups | None,
    new: Leaves,
    radius: Scalars,
    found: FoundNorms,
    radial: Scalars | None,
) -> KnownGroups:
    """Return what the next step can know.

    Args:
        stacks: the groups.
        known: of this step.
        new: the new weights.
        radius: of each group's sphere.
        found: before this step; its radii are the norms of the new weights.
        radial: the radial parts of the momentum there; None without momentum.
    """
    plan = stacks.plan
    if not checks_weights():
        sample = _no_sample(plan, new) if known is None else known.sample
    else:
        off = _ravel(plan, radius) != _ravel(plan, found.reached)
        sample = _sample(plan, jax.tree.map(apart, new))
        sample = jnp.where(off, 0, sample)
    if radial is None:
        return KnownGroups(None, sample, None)
    radial = state_or_placeholder(stacks.split(radial))
    return KnownGroups(radial, sample, found.rate)


def join_known(
    stacks: geometry.Stacks, plan: Plan, known: KnownGroups | None
) -> KnownGroups | None:
    """Return a state for stacks; its plan has been checked."""
    if known is None or known.radial is None:
        return known
    radial = stored_scalars("radial parts", known.radial, plan)
    return known._replace(radial=stacks.join(radial))
