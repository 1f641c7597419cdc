"""Momentum that is transported between tangent spaces, with its base point."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from psi_optax import geometry
from psi_optax._validation import check_choice, check_decay, check_flag
from psi_optax.groups import Groups, Leaves, Plan, Tree
from psi_optax.transforms.contract import cast_like, stateful_transform

TRANSPORTS = ("projection", "parallel")


class TransportedTraceState(NamedTuple):
    """State of `transported_trace`.

    Attributes:
        trace: the momentum; like params.
        base_point: where the momentum is tangent; like params, zeros at
            ordinary leaves. None where its tangent part is meant: for
            projection, and in `sgd_g`.
    """

    trace: optax.Updates
    base_point: Any


def transported_trace(
    groups: Groups,
    decay: jax.typing.ArrayLike = 0.9,
    nesterov: bool = False,
    *,
    transport: str = "projection",
) -> optax.GradientTransformationExtraArgs:
    r"""Accumulate a momentum that is transported along with the weights.

    This is `optax.trace` on spheres: \(m \leftarrow \mu\, T m + u\), where T
    maps the tangent space of the last weights to that of the current ones.
    "projection" removes the part that became radial, and needs no memory.
    "parallel" rotates the momentum as the weights rotated, along the shortest
    geodesic: it keeps the norm of the momentum, and a copy of the weights. A
    step that rotates a group by nearly half a turn, \(\pi - \delta\),
    determines the direction of its momentum only to \(4\,\varepsilon/\delta\):
    in float32 to 0.4 at \(\delta = 10^{-6}\).

    Updates should be tangent, as gradients are, and of one degree: put it
    between `scale_by_group_norm` and the learning rate, or inside `psi`.
    Ordinary parameters get plain momentum.

    Args:
        groups: scale groups in any form.
        decay: the decay \(\mu\), in [0, 1).
        nesterov: whether to use Nesterov momentum.
        transport: "projection" or "parallel".

    Returns:
        A transform that needs params, with a `TransportedTraceState`.

    Raises:
        TypeError: a hyperparameter is of another type.
        ValueError: a decay outside of [0, 1); an unknown transport, or a state
            that was made with another; groups do not fit params; params are
            missing in `update`.

    Examples:
        >>> from psi_optax import ScaleGroup
        >>> tx = transported_trace(ScaleGroup(axes=0), 0.5)
        >>> east, north = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
        >>> _, state = tx.update(north, tx.init(east), east)
        >>> m, _ = tx.update(jnp.zeros(2), state, jnp.array([0.6, 0.8]))
        >>> (100 * m).round().tolist()  # half of north, made tangent
        [-24.0, 18.0]

    References:
        Cho and Lee, [Riemannian approach to batch
        normalization](https://arxiv.org/abs/1709.09603), 2017, algorithm 2, for
        parallel transport; Absil, Mahony and Sepulchre, [Optimization
        algorithms on matrix manifolds](https://press.princeton.edu/absil),
        2008, section 8.1, for projection.
    """
    check_decay("decay", decay)
    check_flag(nesterov=nesterov)
    check_choice("transport", transport, TRANSPORTS)

    def init(plan: Plan, params: Tree) -> TransportedTraceState:
        del plan
        return TransportedTraceState(
            optax.tree.zeros_like(params),
            initial_base_point(transport, params),
        )

    def update(
        plan: Plan,
        updates: Tree,
        state: TransportedTraceState,
        params: Tree,
        **extra_args: Any,
    ) -> tuple[Tree, TransportedTraceState]:
        del extra_args
        moved, base_point = transport_momentum(
            plan, state.trace, state.base_point, params, transport
        )

        def add(m: jax.Array, u: jax.Array) -> jax.Array:
            return jnp.asarray(decay, u.dtype) * m.astype(u.dtype) + u

        trace = jax.tree.map(add, moved, updates)
        step = jax.tree.map(add, trace, updates) if nesterov else trace
        trace = jax.tree.map(lambda m, x: x.astype(m.dtype), state.trace, trace)
        return step, TransportedTraceState(trace, base_point)

    return stateful_transform(
        groups, update, kind=TransportedTraceState, init=init
    )


def initial_base_point(transport: str | None, params: Tree) -> Any:
    """Return zeros like params for parallel transport, None otherwise.

    The momentum is zero as well. A copy of params would share their buffers,
    which may be donated.
    """
    return optax.tree.zeros_like(params) if transport == "parallel" else None


def transport_momentum(
    plan: Plan,
    momentum: optax.Updates,
    base_point: Any,
    params: Tree,
    transport: str | None,
) -> tuple[optax.Updates, Any]:
    """Return the momentum in the tangent space of params, and its base point.

    Without a transport it is unchanged.

    Raises:
        ValueError: the state was made with another transport.
    """
    _check_base_point(transport, base_point)
    if transport is None:
        return momentum, None
    m, w = plan.select(momentum, "momentum"), plan.select(params)
    if base_point is None:
        moved = geometry.project_to_tangent(plan, w, m)
        return plan.merge(momentum, cast_like(moved, m)), None
    old: Leaves = plan.select(base_point, "base points")
    moved = geometry.transport(plan, old, w, m)
    return (
        plan.merge(momentum, cast_like(moved, m)),
        plan.merge(base_point, cast_like(w, old)),
    )


def _check_base_point(transport: str | None, base_point: Any) -> None:
    """Require a base point for parallel transport, and no other.

    Raises:
        ValueError: the state was made with another transport.
    """
    if (base_point is not None) != (transport == "parallel"):
        raise ValueError(
            f"transport={transport!r}, but the state was made with another:"
            " begin with init(params)."
        )
