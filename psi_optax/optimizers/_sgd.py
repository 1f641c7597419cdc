"""SGD on spheres, by one sum over the weights of each group."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from psi_optax import geometry
from psi_optax.groups import Groups, Leaves, Plan, Tree
from psi_optax.groups.paths import leaves_with_paths, map_with_path
from psi_optax.groups.reductions import to_accumulator
from psi_optax.optimizers._known_groups import (
    find_norms,
    learn_groups,
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
        w = plan.select(params)
        radius = stored_scalars("radii", state.radius, plan)
        norm, reached = find_norms(plan, w, state.known, radius)
        extra_args[_FACTORS] = plan.broadcast(norm)
        steps, inner_state = inner.update(
            updates, state.inner, params, **extra_args
        )
        d = plan.select_steps(steps)
        rate = signed_rate(learning_rate, state.count)
        rates = plan.full(rate)
        if momentum is None:  # The norm times the gradient is never written.
            rates = jax.tree.map(jnp.multiply, rates, norm)
        radial = radial_parts(plan, w, d, norm, state.known, momentum)
        coefficients = geometry.one_sum_coefficients(
            plan, w, d, rates, norm, radial, reached
        )
        moved = geometry.one_sum_step(plan, w, d, norm, coefficients)
        new = jax.tree.map(jnp.add, w, moved)
        known = learn_groups(
            plan, state.known, new, radius, reached, coefficients
        )
        if momentum is None:
            known = known._replace(radial=None)
        if ordinary is None:
            steps = jax.tree.map(
                lambda x: jnp.asarray(rate, x.dtype) * x, steps
            )
        facts = (d, norm, radial, reached, coefficients)
        _remember(plan, w, moved, *facts)
        moved = cast_like(moved, plan.select(updates, "updates"))
        return plan.merge(steps, moved), PsiState(
            optax.safe_increment(state.count), state.radius, inner_state, known
        )

    return stateful_transform(groups, update, kind=PsiState, init=init)


def _remember(plan: Plan, w: Leaves, u: Leaves, *facts: Any) -> None:
    """Let a monitor know the parts of u; see `geometry.one_sum_parts`."""

    def parts(u: Leaves) -> tuple[Leaves, geometry.UpdateParts]:
        return u, geometry.one_sum_parts(plan, *facts)

    geometry.remember_parts(plan, w, u, parts)


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
            s = factors[path]
            old = jnp.asarray(decay, s.dtype) * to_accumulator(m)
            new = old + s * to_accumulator(g)
            return jnp.where(s == 0, old, new).astype(m.dtype)

        steps = map_with_path(add, updates)
        return steps, optax.TraceState(steps)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
