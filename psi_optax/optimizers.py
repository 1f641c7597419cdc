"""Optimizers on the PSI manifold: `psi` around any optimizer, and recipes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from psi_optax import geometry
from psi_optax.geometry import RETRACTIONS, Leaves, Scalars
from psi_optax.groups import Plan, group_labels, make_plan
from psi_optax.transforms.base import (
    Radius,
    check_radius,
    current_radius,
    initial_radius,
    like,
    require_params,
)


class PsiState(NamedTuple):
    """What `psi` keeps."""

    count: jax.typing.ArrayLike  # steps taken; shape=(), dtype=int32
    radius: Any  # {group name: array of the group shape}, or None
    inner: optax.OptState  # of the inner optimizer, all of it of degree 0


def psi(
    inner: optax.GradientTransformation,
    groups: Any,
    *,
    learning_rate: optax.ScalarOrSchedule | None = None,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
    retraction: str | None = "projection",
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
    every bit. A gradient that is not finite spoils its own group, and what the
    inner optimizer mixes with it, but `psi` itself spreads it to no other.

    Not supported inside: optimizers that keep parameters in their state
    (`schedule_free`, `lookahead`, `sam`, `mechanize`), which a retraction
    would leave behind, and those that take values and gradients of the loss as
    extra arguments (`lbfgs`, line searches), which would be unscaled. `init`
    raises for them.

    Args:
        inner: any other optimizer; or, with `learning_rate`, a direction, such
            as `optax.trace(0.9)` or `optax.scale_by_adam()`, that is followed
            downhill. The latter is faster: no scaled copy of it is made.
        groups: scale groups in any form.
        learning_rate: a number or a schedule; None if `inner` has its own.
        ordinary: a whole optimizer, with its own rate, for ordinary
            parameters, of which `inner` then sees none.
        radius: "init" keeps the norms that `init` finds, in the state, for
            ever; None keeps the norm at each step, without memory: rounding
            then adds up. A number moves groups off that sphere onto it.
        retraction: "projection", "exponential" (a step of length t then turns
            by t), or None: the paper's w + r d, whose norm grows for ever.

    Returns:
        A transform that needs params, with a `PsiState`.

    Raises:
        ValueError: groups do not fit params; params are missing in `update`;
            an unknown radius or retraction; an optimizer not supported.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> tx = psi(optax.sgd(0.1), ScaleGroup(axes=0))
        >>> w = jnp.array([3.0, 4.0])
        >>> u, state = tx.update(jnp.array([-0.8, 0.6]), tx.init(w), w)
        >>> jnp.linalg.norm(w + u).round(4).item()
        5.0

    References:
        Yi, `Accelerating training of batch normalization: a manifold
        perspective <https://arxiv.org/abs/2101.02916>`_, UAI 2022.
    """
    check_radius(radius)
    if retraction not in RETRACTIONS:
        raise ValueError(
            f"retraction={retraction!r}: choose one of {RETRACTIONS}."
        )
    if ordinary is not None:
        inner = optax.partition(
            {"scale": inner, "ordinary": ordinary},
            lambda tree: group_labels(tree, groups),
        )
    inner = optax.with_extra_args_support(inner)
    radius = radius if retraction else None  # No sphere, no radius to keep.

    def init_fn(params):
        plan = make_plan(groups, params)
        w = plan.select(params)
        state = inner.init(plan.merge(params, _directions(plan, w)))
        _check_supported(state)
        return PsiState(
            count=jnp.zeros([], jnp.int32),
            radius=initial_radius(radius, plan, w),
            inner=state,
        )

    def update_fn(updates, state, params=None, **extra_args):
        require_params(params)
        plan = make_plan(groups, params)
        w, g = plan.select(params), plan.select(updates, "updates")
        gradient = like(geometry.scale(plan, g, geometry.norm(plan, w)), g)
        steps, inner_state = inner.update(
            plan.merge(updates, gradient),
            state.inner,
            plan.merge(params, _directions(plan, w)),
            **extra_args,
        )
        d = plan.select(steps, "the inner optimizer's updates")
        rate = _additive_rate(learning_rate, state.count)
        moved = geometry.step(
            plan,
            w,
            d,
            plan.full(rate),
            current_radius(radius, state.radius, plan, w),
            retraction=retraction,
            singletons=plan.singletons,
        )
        if learning_rate is not None and ordinary is None:
            steps = jax.tree.map(
                lambda x: jnp.asarray(rate, x.dtype) * x, steps
            )
        state = PsiState(
            optax.safe_increment(state.count), state.radius, inner_state
        )
        return plan.merge(steps, like(moved, d)), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def psi_sgd(
    learning_rate: optax.ScalarOrSchedule,
    groups: Any,
    momentum: float | None = None,
    nesterov: bool = False,
    *,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
    retraction: str | None = "projection",
) -> optax.GradientTransformationExtraArgs:
    r"""SGD on the PSI manifold, with momentum in direction space.

    \(m \leftarrow \mu m + r\,g\), and the weights turn against m. Without
    momentum this is the paper's PSI-SGD, \(w - \eta\,r^2 g\), brought back to
    its sphere. The momentum is of degree 0 and differs from the paper's, for
    which see `psi_sgdm`, by the square of the angle a step.

    A rate of \(\eta/|w|^2\) gives the first step that SGD takes with
    \(\eta\): about half of it after He initialization. Nothing anneals it, so
    let it decay.

    Args:
        learning_rate: a number or a schedule, about the angle a step for a
            gradient of norm 1 in direction space.
        groups: scale groups in any form.
        momentum: the decay \(\mu\), or None for none.
        nesterov: whether to look ahead.
        ordinary: see `psi`.
        radius: see `psi`.
        retraction: see `psi`.

    Returns:
        A transform that needs params, with a `PsiState`.

    Raises:
        ValueError: see `psi`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> tx = psi_sgd(0.1, ScaleGroup(axes=0), momentum=0.9)
        >>> w = jnp.array([3.0, 4.0])
        >>> u, _ = tx.update(jnp.array([-0.8, 0.6]), tx.init(w), w)
        >>> print((w + u).round(3))  # turned by arctan(0.1 * 5 * 1)
        [4.472 2.236]

    References:
        Yi, `Accelerating training of batch normalization: a manifold
        perspective <https://arxiv.org/abs/2101.02916>`_, UAI 2022, algorithm 1.
    """
    return psi(
        optax.identity()
        if momentum is None
        else optax.trace(momentum, nesterov),
        groups,
        learning_rate=learning_rate,
        ordinary=ordinary,
        radius=radius,
        retraction=retraction,
    )


def psi_adam(
    learning_rate: optax.ScalarOrSchedule,
    groups: Any,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    *,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
    retraction: str | None = "projection",
) -> optax.GradientTransformationExtraArgs:
    r"""Adam on the PSI manifold: both moments of \(r\,g\), in direction space.

    All moments are of degree 0, so that even `eps` does not break
    equivariance. Weight decay acts on ordinary parameters only: on a sphere it
    has nothing to do.

    A step of Adam is about as long as the square root of the number of weights
    in a group, so its rate per weight is to be compared with weights of size
    \(1/\sqrt{n}\).

    Args:
        learning_rate: a number or a schedule.
        groups: scale groups in any form.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root of the second moment.
        weight_decay: decoupled decay of ordinary parameters, times the rate.
        ordinary: see `psi`; `weight_decay` does not act on it.
        radius: see `psi`.
        retraction: see `psi`.

    Returns:
        A transform that needs params, with a `PsiState`.

    Raises:
        ValueError: see `psi`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> tx = psi_adam(0.1, ScaleGroup(axes=0))
        >>> w = jnp.array([3.0, 4.0])
        >>> u, _ = tx.update(jnp.array([-0.8, 0.6]), tx.init(w), w)
        >>> jnp.linalg.norm(w + u).round(4).item()
        5.0

    References:
        Kingma and Ba, `Adam <https://arxiv.org/abs/1412.6980>`_, 2014.
    """

    def is_ordinary(tree):
        labels = group_labels(tree, groups)
        return jax.tree.map(lambda label: label == "ordinary", labels)

    return psi(
        optax.chain(
            optax.scale_by_adam(b1, b2, eps),
            optax.add_decayed_weights(weight_decay, is_ordinary),
        ),
        groups,
        learning_rate=learning_rate,
        ordinary=ordinary,
        radius=radius,
        retraction=retraction,
    )


class PsiSgdmState(NamedTuple):
    """What `psi_sgdm` keeps."""

    count: jax.typing.ArrayLike  # steps taken; shape=(), dtype=int32
    radius: Any  # {group name: array of the group shape}, or None
    momentum: optax.Updates  # like params, of degree 1


def psi_sgdm(
    learning_rate: optax.ScalarOrSchedule,
    groups: Any,
    momentum: float = 0.9,
    *,
    radius: Radius = "init",
    retraction: str | None = "projection",
) -> optax.GradientTransformationExtraArgs:
    r"""The PSI paper's own SGD with momentum.

    \[u \leftarrow \mu u - \eta\,r^2 g, \qquad w \leftarrow w + u.\]

    The momentum is of degree 1: it grows and shrinks with the weights. So it is
    kept here, and where w + u is brought back to the sphere it is multiplied
    by the same factor; it is neither projected nor transported. The directions
    are those of the paper's additive update, which `retraction=None` gives.
    `psi_sgd(..., momentum=...)` is the alternative whose state is of degree 0.

    Args:
        learning_rate: a number or a schedule; it is inside the momentum.
        groups: scale groups in any form.
        momentum: the decay \(\mu\).
        radius: see `psi`.
        retraction: "projection" or None.

    Returns:
        A transform that needs params, with a `PsiSgdmState`. Ordinary
        parameters get SGD with the same momentum.

    Raises:
        ValueError: groups do not fit params; params are missing in `update`;
            an unknown radius or retraction.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> tx = psi_sgdm(0.1, ScaleGroup(axes=0), retraction=None)
        >>> w = jnp.array([2.0, 0.0])
        >>> print(tx.update(jnp.array([0.0, 1.0]), tx.init(w), w)[0])
        [ 0.  -0.4]

    References:
        Yi, `Accelerating training of batch normalization: a manifold
        perspective <https://arxiv.org/abs/2101.02916>`_, UAI 2022, eq. 11.
    """
    check_radius(radius)
    if retraction not in ("projection", None):
        raise ValueError(
            f'retraction={retraction!r}: choose "projection" or None.'
        )
    radius = radius if retraction else None

    def init_fn(params):
        plan = make_plan(groups, params)
        return PsiSgdmState(
            count=jnp.zeros([], jnp.int32),
            radius=initial_radius(radius, plan, plan.select(params)),
            momentum=optax.tree.zeros_like(params),
        )

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        require_params(params)
        plan = make_plan(groups, params)
        w, g = plan.select(params), plan.select(updates, "updates")
        r = geometry.norm(plan, w)
        gradient = geometry.scale(plan, geometry.scale(plan, g, r), r)
        rate = _additive_rate(learning_rate, state.count)
        steps = jax.tree.map(
            lambda m, x: (
                momentum * m.astype(x.dtype) + jnp.asarray(rate, x.dtype) * x
            ),
            state.momentum,
            plan.merge(updates, like(gradient, g)),
        )
        u = plan.select(steps, "updates")
        buffer = u
        if retraction is not None:
            target = current_radius(radius, state.radius, plan, w)
            buffer = _rescaled_with_weights(plan, w, u, target)
            u = geometry.displacement(w, geometry.retract(plan, w, u, target))
        state = PsiSgdmState(
            optax.safe_increment(state.count),
            state.radius,
            jax.tree.map(
                lambda m, x: x.astype(m.dtype),
                state.momentum,
                plan.merge(steps, buffer),
            ),
        )
        return plan.merge(steps, like(u, g)), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _rescaled_with_weights(
    plan: Plan, w: Leaves, u: Leaves, target: Scalars
) -> Leaves:
    """The step u times the factor that brings w + u to the sphere."""
    moved = jax.tree.map(
        lambda x, y: geometry.widen(x) + geometry.widen(y), w, u
    )
    factor = jax.tree.map(
        geometry.safe_divide, target, geometry.norm(plan, moved)
    )
    return geometry.scale(plan, u, factor)


def _directions(plan: Plan, w: Leaves) -> Leaves:
    return like(geometry.project_to_sphere(plan, w, plan.full(1)), w)


def _additive_rate(
    learning_rate: optax.ScalarOrSchedule | None, count: jax.typing.ArrayLike
) -> jax.typing.ArrayLike:
    """What a step is multiplied by before it is added."""
    if learning_rate is None:
        return 1
    rate = learning_rate(count) if callable(learning_rate) else learning_rate
    return -jnp.asarray(rate)


# States that hold parameters, which would not follow a retraction, or that were
# computed from the loss's own values and gradients.
_UNSUPPORTED = {
    optax.contrib.ScheduleFreeState: "keeps parameters in its state",
    optax.contrib.SAMState: "keeps parameters in its state",
    optax.contrib.MechanicState: "keeps parameters in its state",
    optax.LookaheadState: "keeps parameters in its state",
    optax.ScaleByLBFGSState: "keeps parameters in its state",
    optax.ScaleByBacktrackingLinesearchState: "takes unscaled gradients",
    optax.ScaleByZoomLinesearchState: "takes unscaled gradients",
}


def _check_supported(state: optax.OptState) -> None:
    kinds = tuple(_UNSUPPORTED)
    for node in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, kinds)):
        for kind, why in _UNSUPPORTED.items():
            if isinstance(node, kind):
                raise ValueError(
                    f"psi cannot run an optimizer with a {kind.__name__}"
                    f" inside: it {why}. Put psi inside of it, or use another."
                )
