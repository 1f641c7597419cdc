"""Optimizers on the PSI manifold: any optimizer, or any direction."""

import functools
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax

from psi_optax import geometry
from psi_optax._validation import (
    check_choice,
    check_flag,
    check_learning_rate,
    check_transformation,
)
from psi_optax.geometry import RETRACTIONS
from psi_optax.geometry._scheduling import barrier, measure_sequentially
from psi_optax.groups import Groups, Leaves, Plan, Tree
from psi_optax.optimizers._ascent import warn_of_ascent
from psi_optax.optimizers._ordinary import with_ordinary
from psi_optax.optimizers._rates import warn_of_large_steps
from psi_optax.optimizers._step_sizes import (
    UNCHANGED,
    StepSizeRule,
    join_states,
    split_states,
)
from psi_optax.optimizers._warnings import warn_without_groups
from psi_optax.transforms.contract import cast_like, stateful_transform
from psi_optax.transforms.radius import (
    Radius,
    check_radius,
    initial_radius,
    radius_for,
    sphere_radius,
)
from psi_optax.wrappers.conflicts import CONFLICTS
from psi_optax.wrappers.nesting import (
    Conflict,
    check_nesting,
    ordinary_paths,
)

_Tree = TypeVar("_Tree")


class PsiState(NamedTuple):
    """State of `psi` and `psi_direction`.

    Attributes:
        count: steps taken; shape=(), dtype=int32.
        radius: `{group name: array of the group shape}`, or None.
        inner: of the inner optimizer, all of it of degree 0; of `rotational`,
            followed by the mean squares, as in a chain.
        known: facts that `psi_sgd` keeps of its groups; None for others, and in
            states of earlier versions.
    """

    count: jax.typing.ArrayLike
    radius: Any
    inner: optax.OptState
    known: Any = None


def psi(
    optimizer: optax.GradientTransformation,
    groups: Groups,
    *,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
    retraction: str | None = "projection",
    tangent: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""Run an optimizer on the directions of scale groups.

    For weights w of norm r the optimizer sees the direction \(v = w/r\) as
    parameter and the gradient with respect to it, \(r\,g\). The tangent part of
    its step is applied, and the weights end on the sphere of radius R. With SGD
    inside this is PSI-SGD, \(w - \eta\,r^2 g\) up to the norm. The result does
    not depend on the scale of the weights: multiply a group of the initial
    weights by a power of two, and every later weight is multiplied by it, to
    the last bit, with momentum, Adam, decay or clipping inside.

    A step of length t in direction space rotates a group by arctan t. With SGD
    t is the learning rate times the norm of \(r\,g\). With Adam it is about
    the learning rate times \(\sqrt n\) for n weights: divide a learning rate
    that was tuned without `psi` by r, as `dynamics.convert_learning_rate` does.

    Parameters without groups (*ordinary* ones) are updated by the optimizer as
    without `psi`, or by `ordinary`.

    Clipping and every other transform belongs inside:
    `psi(chain(clip_by_global_norm(1.0), sgd(0.1)), groups)` clips gradients of
    degree 0. A clip before `psi` sees raw gradients, which are large if weights
    are small.

    A group of norm zero never moves. A group with a step of exactly zero keeps
    every bit (but -0.0 becomes 0.0). A non-finite gradient makes its own group
    non-finite; `psi` itself spreads it to no other group, though the optimizer
    may. Integer and boolean parameters are hidden from the optimizer: their
    updates are zeros, of float0 gradients too. A leaf that is not a number,
    such as a typed PRNG key, has its gradient for its update, None or float0:
    keep keys from `optax.apply_updates`, which cannot add to them.

    Some optimizers cannot run inside, and `init` rejects them: those that keep
    copies of grouped weights, which a retraction leaves behind
    (`schedule_free`, `cocob`), and those that take values and gradients of the
    loss as extra arguments (`lbfgs`, line searches), which are unscaled.
    `lookahead`, `sam`, `master_weights` and `stochastic_rounding` belong around
    it, and `average_weights` after it.

    Args:
        optimizer: an optimizer with its own learning rate, such as
            `optax.sgd(0.1)`. For a direction, such as `optax.trace(0.9)`, see
            `psi_direction`: here it would ascend, and `init` warns.
        groups: scale groups in any form.
        ordinary: an optimizer with its own learning rate for ordinary
            parameters, which are then hidden from `optimizer`.
        radius: "init" keeps the norms at `init`, in the state. None keeps the
            norm at each step, without memory: rounding errors add up. A number
            moves groups onto that sphere in one step, or in several from norms
            that are more than 16 (bfloat16), 32 (float16) or 4096 (float32)
            times larger: an update is rounded like the weights.
        retraction: "projection", "exponential" (a step of length t then rotates
            by t), or None: the paper's w + r d, with a growing norm.
        tangent: whether to use the tangent part of steps alone. False uses
            whole steps, as methods do that only normalize after a step: a
            radial part then makes the rotation larger or smaller.

    Returns:
        A transform that needs params, with a `PsiState`.

    Raises:
        TypeError: `optimizer` or `ordinary` is not a gradient transformation;
            the radius is not a real number, such as a boolean.
        ValueError: groups do not fit params; params are missing in `update`, or
            updates are not like them; an unknown radius or retraction; a radius
            without a retraction; an exponential of whole steps; an optimizer
            that is not supported; a state made for other groups, or by another
            optimizer.

    Warns:
        UserWarning: in `init`, groups are given and no parameter has one.
            Groups that a mask hides count. Also if a first step of the
            optimizer, tried on a matrix, has the sign of the gradient.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> tx = psi(optax.sgd(0.1), ScaleGroup(axes=0))
        >>> w = jnp.array([3.0, 4.0])
        >>> u, state = tx.update(jnp.array([-0.8, 0.6]), tx.init(w), w)
        >>> jnp.linalg.norm(w + u).round(4).item()
        5.0

    References:
        Yi, [Accelerating training of batch normalization: a manifold
        perspective](https://arxiv.org/abs/2101.02916), UAI 2022.
    """
    check_transformation(optimizer=optimizer)
    tx = on_spheres(
        optimizer,
        groups,
        learning_rate=None,
        ordinary=ordinary,
        radius=radius,
        retraction=retraction,
        tangent=tangent,
    )
    tx = warn_of_ascent(tx, optimizer, scaled=True)
    return warn_without_groups(tx, groups)


def psi_direction(
    learning_rate: optax.ScalarOrSchedule,
    direction: optax.GradientTransformation,
    groups: Groups,
    *,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
    retraction: str | None = "projection",
    tangent: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""Descend along a direction on the spheres of scale groups.

    `psi_direction(rate, direction, groups)` takes the steps of
    `psi(chain(direction, scale_by_learning_rate(rate)), groups)`, without a
    scaled copy of the direction. See `psi` for everything else.

    Args:
        learning_rate: a number, at least 0, or a schedule.
        direction: a transform without a learning rate, such as
            `optax.trace(0.9)` or `optax.scale_by_adam()`. An optimizer, such as
            `optax.sgd(0.1)`, would ascend, and `init` warns.
        groups: scale groups in any form.
        ordinary: see `psi`. Without it ordinary parameters follow the direction
            at the same learning rate.
        radius: see `psi`.
        retraction: see `psi`.
        tangent: see `psi`.

    Returns:
        A transform that needs params, with a `PsiState`.

    Raises:
        TypeError: the learning rate is neither a number nor a schedule; see
            `psi`.
        ValueError: a negative learning rate; see `psi`.

    Warns:
        UserWarning: in `init`, see `psi`; where a first step of the direction
            has the sign of an optimizer's; and where the direction is
            Adam-like, as its state shows, and the largest learning rate times
            the norm of its step, the root of the number of weights in a group,
            is above 0.3 radians. Where other transforms scale the step, it is
            tried on a gradient of signs. Schedules are sampled at 1,000 steps
            up to a million; a traced learning rate, and a schedule with side
            effects, are not known.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> tx = psi_direction(0.1, optax.trace(0.9), ScaleGroup(axes=0))
        >>> w = jnp.array([3.0, 4.0])
        >>> u, _ = tx.update(jnp.array([-0.8, 0.6]), tx.init(w), w)
        >>> print((w + u).round(3))  # rotated by arctan(0.1 * 5 * 1)
        [4.472 2.236]

    References:
        Yi, [Accelerating training of batch normalization: a manifold
        perspective](https://arxiv.org/abs/2101.02916), UAI 2022.
    """
    check_transformation(direction=direction)
    learning_rate = check_learning_rate(learning_rate)
    tx = on_spheres(
        warn_of_large_steps(direction, learning_rate, groups),
        groups,
        learning_rate=learning_rate,
        ordinary=ordinary,
        radius=radius,
        retraction=retraction,
        tangent=tangent,
    )
    tx = warn_of_ascent(tx, direction, scaled=False)
    return warn_without_groups(tx, groups)


def on_spheres(
    inner: optax.GradientTransformation,
    groups: Groups,
    *,
    learning_rate: optax.ScalarOrSchedule | None,
    ordinary: optax.GradientTransformation | None,
    radius: Radius,
    retraction: str | None = "projection",
    tangent: bool = True,
    step_size: StepSizeRule = UNCHANGED,
) -> optax.GradientTransformationExtraArgs:
    """Return `psi` of an optimizer, or of a direction with a learning rate.

    It does not warn: recipes have warnings of their own.

    Args:
        inner: an optimizer, or a direction.
        groups: scale groups in any form.
        learning_rate: of a direction; None for an optimizer.
        ordinary: see `psi`.
        radius: see `psi`.
        retraction: see `psi`.
        tangent: see `psi`.
        step_size: a factor of the learning rate for each group. Its state
            follows that of the inner optimizer, as in a chain.
    """
    radius = _check_sphere(radius, retraction, tangent)
    inner = optax.with_extra_args_support(
        with_ordinary(inner, ordinary, groups)
    )
    step = functools.partial(
        geometry.step, retraction=retraction, tangent=tangent
    )

    def init(plan: Plan, params: Tree) -> PsiState:
        w = plan.select(params)
        state = inner.init(_directions(plan, w, geometry.norm(plan, w), params))
        check_nesting(
            "psi", state, _PSI_CONFLICTS, ordinary_paths(params, groups)
        )
        return PsiState(
            count=jnp.zeros([], jnp.int32),
            radius=initial_radius(radius, plan, w),
            inner=join_states(step_size, state, step_size.init(plan, w)),
        )

    def update(
        plan: Plan,
        updates: Tree,
        state: PsiState,
        params: Tree,
        **extra_args: Any,
    ) -> tuple[Tree, PsiState]:
        sphere = sphere_radius(radius, state.radius, plan)
        inner_state, rule_state = split_states(step_size, state.inner)
        w, g = plan.select(params), plan.select(updates, "updates")
        square = barrier(plan.dot(w, w))
        norms = jax.tree.map(geometry.safe_sqrt, square)
        gradient = cast_like(geometry.scale(plan, g, norms), g)
        steps, inner_state = inner.update(
            plan.merge(updates, gradient),
            inner_state,
            _directions(plan, w, norms, params),
            **extra_args,
        )
        d = plan.select_steps(steps, "the inner optimizer's updates")
        measure = functools.partial(geometry.step_sums, square=square)
        d, sums = measure_sequentially(plan, w, d, measure, live=inner_state)
        factors, rule_state = step_size.update(plan, sums, rule_state)
        rate = signed_rate(learning_rate, state.count)
        moved = step(plan, w, d, _times(rate, factors), sphere, sums=sums)
        if learning_rate is not None and ordinary is None:
            steps = _times(rate, steps)
        return plan.merge(steps, cast_like(moved, d)), PsiState(
            optax.safe_increment(state.count),
            state.radius,
            join_states(step_size, inner_state, rule_state),
        )

    return stateful_transform(groups, update, kind=PsiState, init=init)


def _check_sphere(
    radius: Radius, retraction: str | None, tangent: bool
) -> Radius:
    """Return the radius, after checking that the options fit together."""
    check_radius(radius)
    check_choice("retraction", retraction, RETRACTIONS)
    check_flag(tangent=tangent)
    if retraction == "exponential" and not tangent:
        raise ValueError(
            'retraction="exponential" follows tangent steps alone: leave'
            ' tangent=True, or choose "projection".'
        )
    return radius_for(retraction, radius)


def signed_rate(
    learning_rate: optax.ScalarOrSchedule | None, count: jax.typing.ArrayLike
) -> jax.typing.ArrayLike:
    """Return the factor of a direction: minus the learning rate, 1 without."""
    if learning_rate is None:
        return 1
    rate = learning_rate(count) if callable(learning_rate) else learning_rate
    return -jnp.asarray(rate)


def _times(rate: jax.typing.ArrayLike, tree: _Tree) -> _Tree:
    return jax.tree.map(lambda x: jnp.asarray(rate, x.dtype) * x, tree)


def _directions(
    plan: Plan, w: Leaves, norms: dict[str, jax.Array], params: Tree
) -> Tree:
    """Return params with every group divided by its norm."""
    directions = geometry.direction(plan, w, norms)
    return plan.merge(params, cast_like(directions, w))


_UNSCALED = Conflict("it takes unscaled gradients", "Choose another optimizer.")
_PSI_CONFLICTS = {
    **CONFLICTS,
    optax.ScaleByBacktrackingLinesearchState: _UNSCALED,
    optax.ScaleByZoomLinesearchState: _UNSCALED,
}
