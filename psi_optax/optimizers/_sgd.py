"""SGD on spheres, by one sum over the weights of each group."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from psi_optax import geometry
from psi_optax.groups import Groups, Leaves, Plan, Scalars, Tree
from psi_optax.groups.paths import leaves_with_paths, map_with_path
from psi_optax.groups.reductions import to_accumulator
from psi_optax.optimizers._known_groups import (
    FoundNorms,
    find_norms,
    join_known,
    learn_groups,
    momentum_leaves,
    radial_parts,
    unknown_groups,
)
from psi_optax.optimizers._ordinary import with_ordinary
from psi_optax.optimizers.psi import PsiState, signed_rate
from psi_optax.transforms.contract import cast_like, stateful_transform
from psi_optax.transforms.radius import initial_radius
from psi_optax.transforms.state_checks import stored_scalars


def sgd_on_spheres(
    learning_rate: optax.ScalarOrSchedule,
    groups: Groups,
    *,
    momentum: jax.typing.ArrayLike | None,
    ordinary: optax.GradientTransformation | None,
) -> optax.GradientTransformationExtraArgs:
    """Return `psi_sgd` on the spheres of the first norms, by projection.

    The gradient of a scale-invariant loss is tangent. Hence the radial part of
    the momentum is known from the last step, and the norm is that of the
    sphere: a step needs one sum, see `geometry.one_sum_step`.

    Args:
        learning_rate: a number or a schedule.
        groups: scale groups in any form.
        momentum: its decay, or None for none.
        ordinary: an optimizer of ordinary parameters, if any.
    """
    direction = (
        optax.identity() if momentum is None else _scaled_trace(momentum)
    )
    inner = optax.with_extra_args_support(
        with_ordinary(direction, ordinary, groups)
    )

    def init(plan: Plan, params: Tree) -> PsiState:
        w = plan.select(params)
        return PsiState(
            count=jnp.zeros([], jnp.int32),
            radius=initial_radius("init", plan, w),
            inner=inner.init(params),
            known=unknown_groups(plan, w, momentum=momentum is not None),
        )

    def update(
        plan: Plan,
        updates: Tree,
        state: PsiState,
        params: Tree,
        **extra_args: Any,
    ) -> tuple[Tree, PsiState]:
        stacks = geometry.stack_leaves(plan)
        w = stacks.join(plan.select(params))
        radius = stacks.join(stored_scalars("radii", state.radius, plan))
        known = join_known(stacks, plan, state.known)
        rate = signed_rate(learning_rate, state.count)
        before = momentum_leaves(plan, state.inner)
        before = None if before is None else stacks.join(before)
        found = find_norms(stacks.plan, w, before, known, radius, rate)
        extra_args[_FACTORS] = plan.broadcast(stacks.split(found.norm))
        steps, inner_state = inner.update(
            updates, state.inner, params, **extra_args
        )
        d = stacks.join(plan.select_steps(steps))
        moved, parts, after = _move(stacks.plan, w, d, rate, found, momentum)
        new = jax.tree.map(jax.lax.add, w, moved)
        known = learn_groups(stacks, known, new, radius, found, after)
        if ordinary is None:
            steps = jax.tree.map(
                lambda x: jnp.asarray(rate, x.dtype) * x, steps
            )
        u = stacks.split(moved)
        geometry.remember_parts(
            plan,
            plan.select(params),
            u,
            lambda u: (u, parts().map(stacks.split)),
        )
        u = cast_like(u, plan.select(updates, "updates"))
        return plan.merge(steps, u), PsiState(
            optax.safe_increment(state.count), state.radius, inner_state, known
        )

    return stateful_transform(groups, update, kind=PsiState, init=init)


def _move(
    plan: Plan,
    w: Leaves,
    d: Leaves,
    rate: jax.typing.ArrayLike,
    found: FoundNorms,
    momentum: jax.typing.ArrayLike | None,
) -> tuple[Leaves, Callable[[], geometry.UpdateParts], Scalars | None]:
    """Return the step, its parts, and the radial part of the momentum after it.

    Without momentum the direction is the gradient times the norm of the group:
    this product is never written.
    """
    radial = radial_parts(plan, w, d, found, momentum)
    rates = plan.full(rate)
    if momentum is None:
        rates = jax.tree.map(jnp.multiply, rates, found.norm)
    moved, scalars = geometry.one_sum_step(
        plan, w, d, rates, found.norm, radial, found.reached, found.count
    )

    def parts() -> geometry.UpdateParts:
        return geometry.one_sum_parts(
            plan, d, found.norm, radial, found.reached, scalars
        )

    return moved, parts, None if momentum is None else scalars.radial


# An argument of `_scaled_trace`, which passes through a partition.
_FACTORS = "psi_factors"


def _scaled_trace(
    decay: jax.typing.ArrayLike,
) -> optax.GradientTransformationExtraArgs:
    """Return `optax.trace` of gradients times the norms of their groups.

    In a group of norm zero gradients may be non-finite and do not count. They
    are masked after the addition, which on a CPU takes half the time of masking
    the product.
    """

    def init_fn(params: Tree) -> optax.TraceState:
        return optax.TraceState(optax.tree.zeros_like(params))

    def update_fn(
        updates: Tree, state: Any, params: Tree | None = None, **extra_args: Any
    ) -> tuple[Tree, Any]:
        del params
        factors: Leaves = extra_args[_FACTORS]
        trace = dict(leaves_with_paths(state.trace))

        def add(path: str, g: jax.Array) -> jax.Array:
            m = trace[path]
            if path not in factors:
                return jnp.asarray(decay, m.dtype) * m + g
            return _accumulate(m, g, factors[path], decay)

        steps = map_with_path(add, updates)
        return steps, optax.TraceState(steps)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


# Equal leaves share one trace, and one function of the lowered program.
@jax.jit
def _accumulate(
    m: jax.Array, g: jax.Array, s: jax.Array, decay: jax.typing.ArrayLike
) -> jax.Array:
    """Return decay m + s g, without g for s = 0."""
    old = jnp.asarray(decay, s.dtype) * to_accumulator(m)
    new = old + s * to_accumulator(g)
    return jnp.where(s == 0, old, new).astype(m.dtype)
