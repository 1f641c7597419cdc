"""Momentum that follows the weights from one tangent space to the next."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from psi_optax import geometry
from psi_optax._validation import check_choice, check_decay, check_flag
from psi_optax.groups import Plan, make_plan
from psi_optax.groups.types import Leaves, Tree
from psi_optax.transforms.contract import cast_like, on_floats

TRANSPORTS = ("projection", "parallel")


class TransportedTraceState(NamedTuple):
    """The momentum and, for parallel transport, where it is tangent.

    Attributes:
        trace: like params.
        place: like params, zeros at ordinary leaves; None for projection.
    """

    trace: optax.Updates
    place: Any


def transported_trace(
    groups: Any,
    decay: jax.typing.ArrayLike = 0.9,
    nesterov: bool = False,
    *,
    transport: str = "projection",
) -> optax.GradientTransformationExtraArgs:
    r"""`optax.trace` on spheres, carried along with the weights.

    \(m \leftarrow \mu\, T m + u\), where T takes the tangent space of the
    weights before to that of the weights now. "projection" drops what has
    become radial and needs no memory. "parallel" turns the momentum as the
    weights turned, along the shortest great circle: its length is kept, and a
    copy of the weights is. A step that turns a group by nearly half a turn,
    \(\pi - \delta\), leaves the direction of its momentum known only to
    \(4\,\varepsilon/\delta\): in float32 to 0.4 at \(\delta = 10^{-6}\).

    Updates should be tangent, as gradients are, and of one degree: put it
    between `scale_by_group_norm` and the rate, or inside `psi`. Ordinary
    parameters get plain momentum.

    Args:
        groups: scale groups in any form.
        decay: the decay \(\mu\), in [0, 1).
        nesterov: whether to look ahead.
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

    def init_fn(params):
        make_plan(groups, params)
        return TransportedTraceState(
            optax.tree.zeros_like(params), initial_place(transport, params)
        )

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        plan = make_plan(groups, params)
        check_place(transport, state.place)
        carried = carry(plan, state.trace, state.place, params)

        def add(m, u):
            return jnp.asarray(decay, u.dtype) * m.astype(u.dtype) + u

        trace = jax.tree.map(add, carried, updates)
        step = jax.tree.map(add, trace, updates) if nesterov else trace
        trace = jax.tree.map(lambda m, x: x.astype(m.dtype), state.trace, trace)
        place = new_place(plan, state.place, params)
        return step, TransportedTraceState(trace, place)

    return on_floats(
        optax.GradientTransformationExtraArgs(init_fn, update_fn),
        groups,
        kind=TransportedTraceState,
    )


def initial_place(transport: str | None, params: Tree) -> Any:
    """What to remember of the weights: nothing unless transport is parallel.

    Zeros, not params: the momentum is zero as well, and a copy would share the
    buffers of params, which may be donated.
    """
    return optax.tree.zeros_like(params) if transport == "parallel" else None


def check_place(transport: str | None, place: Any) -> None:
    """Raises for a state that was made with another transport.

    Raises:
        ValueError: what parallel transport remembers is missing, or is there
            without it.
    """
    if (place is not None) != (transport == "parallel"):
        raise ValueError(
            f"transport={transport!r}, but the state was made with another:"
            " begin with init(params)."
        )


def new_place(plan: Plan, place: Any, params: Tree) -> Any:
    """The weights now, where they are remembered."""
    if place is None:
        return None
    w = plan.select(params)
    return plan.merge(place, cast_like(w, plan.select(place, "places")))


def carry(
    plan: Plan, momentum: optax.Updates, place: Any, params: Tree
) -> optax.Updates:
    """The momentum, carried to the tangent space of params."""
    m, w = plan.select(momentum, "momentum"), plan.select(params)
    return plan.merge(momentum, cast_like(_carry(plan, m, place, w), m))


def _carry(plan: Plan, m: Leaves, place: Any, w: Leaves) -> Leaves:
    if place is None:
        return geometry.project_to_tangent(plan, w, m)
    return geometry.transport(plan, plan.select(place, "places"), w, m)
