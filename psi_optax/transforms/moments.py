"""Second moments of one number a group."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from psi_optax import geometry
from psi_optax._validation import check_choice, check_decay, check_nonnegative
from psi_optax.groups import Plan, group_labels, make_plan
from psi_optax.groups.types import Leaves, Scalars
from psi_optax.transforms.contract import cast_like, on_floats, on_groups
from psi_optax.transforms.momentum import (
    TRANSPORTS,
    carry,
    check_place,
    initial_place,
    new_place,
)
from psi_optax.transforms.states import stored_scalars


class ScaleByGroupRmsState(NamedTuple):
    """The mean square of each group's updates.

    Attributes:
        count: steps taken; shape=(), dtype=int32.
        nu: `{group name: array of the group shape}`.
    """

    count: jax.typing.ArrayLike
    nu: Any


class ScaleByGroupAdamState(NamedTuple):
    """Adam's moments, the second of them one number a group.

    Attributes:
        count: steps taken; shape=(), dtype=int32.
        mu: like params.
        nu: `{group name: array of the group shape}`.
        place: where mu is tangent, for parallel transport; None otherwise.
    """

    count: jax.typing.ArrayLike
    mu: optax.Updates
    nu: Any
    place: Any


def scale_by_group_rms(
    groups: Any,
    decay: jax.typing.ArrayLike = 0.9,
    eps: jax.typing.ArrayLike = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    r"""Divides the updates of every group by the root of their mean square.

    \(s \leftarrow \beta s + (1 - \beta) |u|^2\), without its bias towards
    zero, and \(u \mapsto u / (\sqrt{s} + \epsilon)\): updates of length 1 on
    average over time, in the same direction. Tangent updates stay tangent.
    Ordinary parameters pass through.

    Args:
        groups: scale groups in any form.
        decay: the decay \(\beta\); 0 normalizes every single update.
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

    def init(plan: Plan, w: Leaves) -> ScaleByGroupRmsState:
        return ScaleByGroupRmsState(*_no_moments(plan, w))

    def update(plan: Plan, u: Leaves, _: Leaves, state: Any):
        count = jnp.asarray(optax.safe_increment(state.count))
        nu = _mean(decay, _stored(plan, state), plan.dot(u, u))
        factor = jax.tree.map(
            lambda s: _inverse_root(s, _debias(decay, count, s), eps, 0), nu
        )
        state = ScaleByGroupRmsState(count, _kept(state.nu, nu))
        return geometry.scale(plan, u, factor), state

    return on_groups(
        groups,
        update,
        kind=ScaleByGroupRmsState,
        init=init,
        needs_params=False,
    )


def scale_by_group_adam(
    groups: Any,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    eps_root: jax.typing.ArrayLike = 0.0,
    *,
    transport: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam with one second moment a group, which keeps the direction of steps.

    \[m \leftarrow \beta_1 T m + (1-\beta_1) u, \qquad
       s \leftarrow \beta_2 s + (1-\beta_2) |u|^2, \qquad
       u \mapsto \frac{\hat m}{\sqrt{\hat s + \epsilon_0} + \epsilon}\]

    with the usual correction of both moments. Nothing of it depends on the
    axes of the weights: rotate them and the step is rotated. A step is about as
    long as 1 where gradients all point the same way, and shorter where they do
    not, whatever the size of the group; after gradients have grown it is
    longer, up to \((1-\beta_1)/\sqrt{(1-\beta_2)(1-\beta_1^2/\beta_2)}\), 7.3
    by default. Ordinary parameters get plain Adam.

    Args:
        groups: scale groups in any form.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the root of the second moment.
        eps_root: added to the second moment.
        transport: "projection" or "parallel" carry the first moment along with
            the weights, as in `transported_trace`; None leaves it.

    Returns:
        A transform with a `ScaleByGroupAdamState` inside, which needs params if
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

    def init_fn(params):
        plan = make_plan(groups, params)
        count, nu = _no_moments(plan, plan.select(params))
        return ScaleByGroupAdamState(
            count,
            optax.tree.zeros_like(params),
            nu,
            initial_place(transport, params),
        )

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        plan, mu, place = make_plan(groups, updates), state.mu, state.place
        squares = _stored(plan, state)
        check_place(transport, place)
        if transport is not None:
            mu = carry(plan, mu, place, params)
            place = new_place(plan, place, params)
        g, m = plan.select(updates), plan.select(mu, "moments")
        count = jnp.asarray(optax.safe_increment(state.count))
        m = {k: _mix(b1, m[k].astype(x.dtype), x) for k, x in g.items()}
        nu = _mean(b2, squares, plan.dot(g, g))
        factor = jax.tree.map(
            lambda s: (
                _debias(b1, count, s)
                * _inverse_root(s, _debias(b2, count, s), eps, eps_root)
            ),
            nu,
        )
        return (
            plan.merge(updates, cast_like(geometry.scale(plan, m, factor), g)),
            ScaleByGroupAdamState(
                count,
                plan.merge(mu, cast_like(m, plan.select(mu))),
                _kept(state.nu, nu),
                place,
            ),
        )

    grouped = optax.GradientTransformationExtraArgs(init_fn, update_fn)
    both = optax.partition(
        {
            "scale": grouped,
            "ordinary": optax.scale_by_adam(b1, b2, eps, eps_root),
        },
        lambda tree: group_labels(tree, groups),
    )
    return on_floats(both, groups, needs_params=transport is not None)


def _no_moments(plan: Plan, w: Leaves) -> tuple[jax.Array, Any]:
    # A leaf in place of an empty dictionary: see `initial_radius`.
    if not plan.leaves:
        return jnp.zeros([], jnp.int32), jnp.zeros([])
    # Zeros that are sharded as the sums over groups will be.
    nu = jax.tree.map(jnp.zeros_like, plan.dot(w, w))
    return jnp.zeros([], jnp.int32), nu


def _stored(plan: Plan, state: Any) -> Scalars:
    return stored_scalars("mean squares", state.nu, plan)


def _kept(before: Any, nu: Scalars) -> Any:
    return nu if isinstance(before, dict) else before


def _mix(decay, old: jax.Array, new: jax.Array) -> jax.Array:
    decay = jnp.asarray(decay, old.dtype)
    return decay * old + (1 - decay) * new


def _mean(decay, old: Scalars, new: Scalars) -> Scalars:
    return jax.tree.map(lambda x, y: _mix(decay, x, y), old, new)


def _debias(decay, count: jax.Array, like: jax.Array) -> jax.Array:
    decay = jnp.asarray(decay, cast_like.dtype)
    return 1 / (1 - decay ** count.astype(cast_like.dtype))


def _inverse_root(square, debias, eps, eps_root) -> jax.Array:
    """One over the root of a mean square; zero where there is nothing."""
    square = square * debias + jnp.asarray(eps_root, square.dtype)
    root = geometry.safe_sqrt(square) + jnp.asarray(eps, square.dtype)
    return geometry.safe_divide(jnp.ones_like(root), root)
