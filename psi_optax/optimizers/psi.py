"""Any optimizer on the PSI manifold."""

from typing import Any, NamedTuple

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
from psi_optax.groups import Plan, group_labels, make_plan
from psi_optax.groups.types import Leaves, Scalars
from psi_optax.transforms.contract import cast_like, on_floats
from psi_optax.transforms.radius import (
    Radius,
    check_radius,
    initial_radius,
    radius_for,
    sphere_radius,
)
from psi_optax.wrappers.nesting import (
    CONFLICTS,
    Conflict,
    check_nesting,
    ordinary_paths,
)


class PsiState(NamedTuple):
    """What `psi` keeps.

    Attributes:
        count: steps taken; shape=(), dtype=int32.
        radius: `{group name: array of the group shape}`, or None.
        inner: of the inner optimizer, all of it of degree 0.
    """

    count: jax.typing.ArrayLike
    radius: Any
    inner: optax.OptState


def psi(
    inner: optax.GradientTransformation,
    groups: Any,
    *,
    learning_rate: optax.ScalarOrSchedule | None = None,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
    retraction: str | None = "projection",
    tangent: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""Runs an optimizer on the directions of scale groups.

    For weights w of norm r the inner optimizer is shown the direction
    \(v = w/r\) as parameter and the gradient with respect to it, \(r\,g\).
    Of the step it answers, the tangent part is taken, and the weights end on
    the sphere of radius R. With SGD inside that is PSI-SGD,
    \(w - \eta\,r^2 g\) up to the norm. Nothing in it depends on the scale of
    the weights: multiply a group of the initial weights by a power of two, and
    every later weight is multiplied by it, to the last bit, with momentum,
    Adam, decay or clipping inside. A learning rate is an angle, about: a step
    of length t in direction space turns a group by arctan t.

    Other parameters ("ordinary") are handled by the inner optimizer as if
    `psi` were not there, or by `ordinary`.

    Clipping and every other transform belongs inside:
    `psi(chain(clip_by_global_norm(1.0), sgd(0.1)), groups)` clips gradients of
    degree 0, while a clip in front of `psi` sees raw ones, which are large
    where weights are small.

    A group of norm zero never moves. A group whose step is exactly zero keeps
    every bit but the sign of -0.0. A gradient that is not finite spoils its own
    group, and what the inner optimizer mixes with it, but `psi` itself spreads
    it to no other. Integer and boolean parameters are not moved, nor shown to
    `inner`: their updates are zeros, of float0 gradients too. What is no
    number, such as a typed PRNG key, is left alone as well: its update is its
    gradient, None or float0. Keep keys from `optax.apply_updates`, which can
    add nothing to them.

    Not supported inside: what keeps copies of grouped weights, which a
    retraction would leave behind (`schedule_free`, `cocob`), and what takes
    values and gradients of the loss as extra arguments (`lbfgs`, line
    searches), which would be unscaled. `lookahead`, `sam`, `master_weights` and
    `stochastic_rounding` belong around it, `average_weights` behind it. `init`
    raises for all of them.

    Args:
        inner: an optimizer, with its own learning rate; or, *with*
            `learning_rate`, a direction such as `optax.trace(0.9)` or
            `optax.scale_by_adam()`. Not the one in the other's place: an
            optimizer given a rate here ascends, as does a direction given none.
            A direction spares a scaled copy of itself.
        groups: scale groups in any form.
        learning_rate: a real number, at least 0, or a schedule, by which the
            direction is followed downhill; None if `inner` is an optimizer.
        ordinary: a whole optimizer, with its own rate, for ordinary
            parameters, of which `inner` then sees none.
        radius: "init" keeps the norms that `init` finds, in the state, for
            ever; None keeps the norm at each step, without memory: rounding
            then adds up. A number moves groups off that sphere onto it, in one
            step, or in several from norms that are more than 16 (bfloat16), 32
            (float16) or 4096 (float32) times larger: an update is rounded as
            the weights that it is added to.
        retraction: "projection", "exponential" (a step of length t then turns
            by t), or None: the paper's w + r d, whose norm grows for ever.
        tangent: whether to take the tangent part of steps alone. False takes
            them whole, as methods do that only normalize after the step: a
            radial part then makes it longer or shorter.

    Returns:
        A transform that needs params, with a `PsiState`.

    Raises:
        TypeError: `inner` or `ordinary` is no gradient transformation; the
            learning rate or the radius is no real number, such as a boolean.
        ValueError: groups do not fit params; params are missing in `update`, or
            updates are not like them; a learning rate that is negative, or an
            array of several; an unknown radius or retraction; a radius without
            a retraction; an exponential of steps that are not tangent; an
            optimizer not supported; a state made for other groups, or by
            another optimizer.

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
    check_transformation(inner=inner)
    if ordinary is not None:
        check_transformation(ordinary=ordinary)
    if learning_rate is not None:
        learning_rate = check_learning_rate(learning_rate)
    check_radius(radius)
    check_choice("retraction", retraction, RETRACTIONS)
    check_flag(tangent=tangent)
    if retraction == "exponential" and not tangent:
        raise ValueError(
            'retraction="exponential" follows tangent steps only: leave'
            ' tangent=True, or choose "projection".'
        )
    if ordinary is not None:
        inner = optax.partition(
            {"scale": inner, "ordinary": ordinary},
            lambda tree: group_labels(tree, groups),
        )
    inner = optax.with_extra_args_support(inner)
    radius = radius_for(retraction, radius)

    def init_fn(params):
        plan = make_plan(groups, params)
        w = plan.select(params)
        directions = _directions(plan, w, geometry.norm(plan, w))
        state = inner.init(plan.merge(params, directions))
        check_nesting("psi", state, ordinary_paths(params, groups), _REFUSALS)
        return PsiState(
            count=jnp.zeros([], jnp.int32),
            radius=initial_radius(radius, plan, w),
            inner=state,
        )

    def update_fn(updates, state, params=None, **extra_args):
        plan = make_plan(groups, params)
        sphere = sphere_radius(radius, state.radius, plan)
        w, g = plan.select(params), plan.select(updates, "updates")
        square = geometry.barrier(plan.dot(w, w))
        norms = jax.tree.map(geometry.safe_sqrt, square)
        gradient = cast_like(geometry.scale(plan, g, norms), g)
        steps, inner_state = inner.update(
            plan.merge(updates, gradient),
            state.inner,
            plan.merge(params, _directions(plan, w, norms)),
            **extra_args,
        )
        d = plan.select_steps(steps, "the inner optimizer's updates")
        stored = {id(x) for x in jax.tree.leaves(inner_state)}
        rate = signed_rate(learning_rate, state.count)
        moved = geometry.step(
            plan,
            w,
            d,
            plan.full(rate),
            sphere,
            retraction=retraction,
            tangent=tangent,
            square=square,
            # Of momentum, the direction is the state.
            kept={path for path, x in d.items() if id(x) in stored},
        )
        if learning_rate is not None and ordinary is None:
            steps = jax.tree.map(
                lambda x: jnp.asarray(rate, x.dtype) * x, steps
            )
        state = PsiState(
            optax.safe_increment(state.count), state.radius, inner_state
        )
        return plan.merge(steps, cast_like(moved, d)), state

    return on_floats(
        optax.GradientTransformationExtraArgs(init_fn, update_fn),
        groups,
        kind=PsiState,
    )


def _directions(plan: Plan, w: Leaves, norms: Scalars) -> Leaves:
    """Each group over its norm; zero for a norm of zero."""
    inverse = jax.tree.map(
        lambda n: geometry.safe_divide(n.dtype.type(1), n), norms
    )
    return cast_like(geometry.scale(plan, w, inverse), w)


_UNSCALED = Conflict("it takes unscaled gradients", "Take another.")
_REFUSALS = {
    **CONFLICTS,
    optax.ScaleByBacktrackingLinesearchState: _UNSCALED,
    optax.ScaleByZoomLinesearchState: _UNSCALED,
}
