"""Second moments: one scalar per group."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from psi_optax import geometry
from psi_optax._validation import check_choice, check_decay, check_nonnegative
from psi_optax.groups import Groups, Leaves, Plan, Scalars, Tree, group_labels
from psi_optax.transforms.contract import (
    cast_like,
    floating_transform,
    grouped_transform,
    stateful_transform,
)
from psi_optax.transforms.momentum import (
    TRANSPORTS,
    initial_base_point,
    transport_momentum,
)
from psi_optax.transforms.state_checks import (
    state_or_placeholder,
    stored_scalars,
)


class ScaleByGroupRmsState(NamedTuple):
    """State of `scale_by_group_rms`.

    Attributes:
        count: steps taken; shape=(), dtype=int32.
        nu: the mean square of each group's updates; `{group name: array of the
            group shape}`.
    """

    count: jax.typing.ArrayLike
    nu: Any


class ScaleByGroupAdamState(NamedTuple):
    """State of `scale_by_group_adam`.

    Attributes:
        count: steps taken; shape=(), dtype=int32.
        mu: the first moment; like params.
        nu: the second moment; `{group name: array of the group shape}`.
        base_point: where mu is tangent, for parallel transport; None
            otherwise, and in `adam_g`.
    """

    count: jax.typing.ArrayLike
    mu: optax.Updates
    nu: Any
    base_point: Any


def scale_by_group_rms(
    groups: Groups,
    decay: jax.typing.ArrayLike = 0.9,
    eps: jax.typing.ArrayLike = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    r"""Divide the updates of each group by the root of their mean square.

    \(s \leftarrow \beta s + (1 - \beta) |u|^2\), corrected for its bias
    towards zero, and \(u \mapsto u / (\sqrt{s} + \epsilon)\). Updates keep
    their direction, and have norm 1 on average over time. Ordinary parameters
    pass through.

    Args:
        groups: scale groups in any form.
        decay: the decay \(\beta\), in [0, 1); 0 normalizes each update.
        eps: added to the root, in the units of updates.

    Returns:
        A transform with a `ScaleByGroupRmsState`. It does not need params.

    Raises:
        TypeError: a hyperparameter is of another type.
        ValueError: a decay outside of [0, 1), or a negative eps; groups do not
            fit the updates.

    Examples:
        >>> from psi_optax import ScaleGroup
        >>> tx = scale_by_group_rms(ScaleGroup(axes=0))
        >>> w = jnp.array([1.0, 0.0])
        >>> u, _ = tx.update(jnp.array([3.0, 4.0]), tx.init(w))
        >>> (10 * u).round().tolist()
        [6.0, 8.0]

    References:
        Kosson, Messmer and Jaggi, [Rotational
        equilibrium](https://arxiv.org/abs/2305.17212), ICML 2024, algorithm 1.
    """
    check_decay("decay", decay)
    check_nonnegative("eps", eps)

    def update(
        plan: Plan, u: Leaves, _: Leaves, state: ScaleByGroupRmsState
    ) -> tuple[Leaves, ScaleByGroupRmsState]:
        factor, state = update_group_rms(
            plan, plan.dot(u, u), state, decay, eps
        )
        return geometry.scale(plan, u, factor), state

    return grouped_transform(
        groups,
        update,
        kind=ScaleByGroupRmsState,
        init=initial_group_rms,
        needs_params=False,
    )


def initial_group_rms(plan: Plan, w: Leaves) -> ScaleByGroupRmsState:
    """Return a state before the first step."""
    count = jnp.zeros([], jnp.int32)
    return ScaleByGroupRmsState(count, _zero_moments(plan, w))


def update_group_rms(
    plan: Plan,
    squares: Scalars,
    state: ScaleByGroupRmsState,
    decay: jax.typing.ArrayLike,
    eps: jax.typing.ArrayLike,
) -> tuple[Scalars, ScaleByGroupRmsState]:
    """Return one over the root of the mean square, and the next state.

    Args:
        plan: the groups.
        squares: of each group at this step.
        state: of the steps before.
        decay: of the mean, in [0, 1).
        eps: added to the root.

    Raises:
        ValueError: the state was made for other groups.
    """
    count = jnp.asarray(optax.safe_increment(state.count))
    nu = _mean(decay, stored_scalars("mean squares", state.nu, plan), squares)
    factor = jax.tree.map(
        lambda s: _inverse_root(s, _debias(decay, count, s), eps, 0), nu
    )
    return factor, ScaleByGroupRmsState(count, _like_stored(state.nu, nu))


def scale_by_group_adam(
    groups: Groups,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    eps_root: jax.typing.ArrayLike = 0.0,
    *,
    transport: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Scale updates by Adam with one second moment per group.

    \[m \leftarrow \beta_1 T m + (1-\beta_1) u, \qquad
       s \leftarrow \beta_2 s + (1-\beta_2) |u|^2, \qquad
       u \mapsto \frac{\hat m}{\sqrt{\hat s + \epsilon_0} + \epsilon}\]

    with the usual bias correction of both moments. The step has the direction
    of the first moment. It does not depend on the axes of the weights: if they
    are rotated, the step is rotated. Its norm is about 1 if all gradients have
    one direction, and less otherwise, whatever the size of the group. After
    gradients have grown it is more, up to
    \((1-\beta_1)/\sqrt{(1-\beta_2)(1-\beta_1^2/\beta_2)}\), 7.3 by default.
    Ordinary parameters get plain Adam.

    Args:
        groups: scale groups in any form.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the root of the second moment.
        eps_root: added to the second moment.
        transport: "projection" or "parallel" transport the first moment along
            with the weights, as in `transported_trace`; None leaves it.

    Returns:
        A transform with a `ScaleByGroupAdamState` inside. It needs params if
        it transports.

    Raises:
        TypeError: a hyperparameter is of another type.
        ValueError: a decay outside of [0, 1), or a negative eps; an unknown
            transport, or a state that was made with another; groups do not fit
            params; params are missing in `update`.

    Examples:
        >>> from psi_optax import ScaleGroup
        >>> tx = scale_by_group_adam(ScaleGroup(axes=0), eps=0.0)
        >>> w = jnp.array([1.0, 0.0])
        >>> u, _ = tx.update(jnp.array([3.0, 4.0]), tx.init(w), w)
        >>> (10 * u).round().tolist()
        [6.0, 8.0]

    References:
        Cho and Lee, [Riemannian approach to batch
        normalization](https://arxiv.org/abs/1709.09603), 2017, algorithm 3;
        Becigneul and Ganea, [Riemannian adaptive optimization
        methods](https://arxiv.org/abs/1810.00760), ICLR 2019.
    """
    check_decay("b1", b1)
    check_decay("b2", b2)
    check_nonnegative("eps", eps)
    check_nonnegative("eps_root", eps_root)
    check_choice("transport", transport, (*TRANSPORTS, None))

    def init(plan: Plan, params: Tree) -> ScaleByGroupAdamState:
        base_point = initial_base_point(transport, params)
        return initial_group_adam(plan, params)._replace(base_point=base_point)

    def update(
        plan: Plan,
        updates: Tree,
        state: ScaleByGroupAdamState,
        params: Tree | None,
        **extra_args: Any,
    ) -> tuple[Tree, ScaleByGroupAdamState]:
        del extra_args
        g = plan.select(updates)
        factors, after = update_group_adam(
            plan, plan.dot(g, g), state, b1, b2, eps, eps_root
        )
        mu, base_point = transport_momentum(
            plan, state.mu, state.base_point, params, transport
        )
        m = plan.select(mu, "moments")
        m = {k: _mix(b1, m[k].astype(x.dtype), x) for k, x in g.items()}
        steps = cast_like(geometry.scale(plan, m, factors), g)
        mu = plan.merge(mu, cast_like(m, plan.select(mu)))
        after = after._replace(mu=mu, base_point=base_point)
        return plan.merge(updates, steps), after

    grouped = stateful_transform(
        groups,
        update,
        kind=ScaleByGroupAdamState,
        init=init,
        needs_params=transport is not None,
    )
    both = optax.partition(
        {
            "scale": grouped,
            "ordinary": optax.scale_by_adam(b1, b2, eps, eps_root),
        },
        lambda tree: group_labels(tree, groups),
    )
    return floating_transform(both, groups, needs_params=transport is not None)


def initial_group_adam(plan: Plan, params: Tree) -> ScaleByGroupAdamState:
    """Return a state before the first step, without a base point."""
    return ScaleByGroupAdamState(
        jnp.zeros([], jnp.int32),
        optax.tree.zeros_like(params),
        _zero_moments(plan, plan.select(params)),
        None,
    )


def update_group_adam(
    plan: Plan,
    squares: Scalars,
    state: ScaleByGroupAdamState,
    b1: jax.typing.ArrayLike,
    b2: jax.typing.ArrayLike,
    eps: jax.typing.ArrayLike,
    eps_root: jax.typing.ArrayLike,
) -> tuple[Scalars, ScaleByGroupAdamState]:
    """Return the factor of the first moment, and the next state but for it.

    Args:
        plan: the groups.
        squares: of each group's updates at this step.
        state: of the steps before.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root of the second moment.
        eps_root: added to the second moment.

    Raises:
        ValueError: the state was made for other groups.
    """
    count = jnp.asarray(optax.safe_increment(state.count))
    nu = _mean(b2, stored_scalars("mean squares", state.nu, plan), squares)

    def factor(s: jax.Array) -> jax.Array:
        root = _inverse_root(s, _debias(b2, count, s), eps, eps_root)
        return _debias(b1, count, s) * root

    new = state._replace(count=count, nu=_like_stored(state.nu, nu))
    return jax.tree.map(factor, nu), new


def _zero_moments(plan: Plan, w: Leaves) -> Any:
    """Return zeros that are sharded like the sums over groups."""
    return state_or_placeholder(jax.tree.map(jnp.zeros_like, plan.dot(w, w)))


def _like_stored(stored: Any, nu: Scalars) -> Any:
    """Return the moments, or the placeholder of a state without groups."""
    return nu if isinstance(stored, dict) else stored


def _mix(
    decay: jax.typing.ArrayLike, old: jax.Array, new: jax.Array
) -> jax.Array:
    decay = jnp.asarray(decay, old.dtype)
    return decay * old + (1 - decay) * new


def _mean(decay: jax.typing.ArrayLike, old: Scalars, new: Scalars) -> Scalars:
    return jax.tree.map(lambda x, y: _mix(decay, x, y), old, new)


def _debias(
    decay: jax.typing.ArrayLike, count: jax.Array, moment: jax.Array
) -> jax.Array:
    """Return the factor that corrects a moment for its bias towards zero."""
    decay = jnp.asarray(decay, moment.dtype)
    return 1 / (1 - decay ** count.astype(moment.dtype))


def _inverse_root(
    square: jax.Array,
    debias: jax.Array,
    eps: jax.typing.ArrayLike,
    eps_root: jax.typing.ArrayLike,
) -> jax.Array:
    """Return one over the root of a mean square; zero for a root of zero."""
    square = square * debias + jnp.asarray(eps_root, square.dtype)
    root = geometry.safe_sqrt(square) + jnp.asarray(eps, square.dtype)
    return geometry.safe_divide(jnp.ones_like(root), root)
