"""What goes on in the groups, looked at from the end of a chain."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from psi_optax import geometry
from psi_optax._validation import check_learning_rate, check_number
from psi_optax.diagnostics.effective_learning_rate import effective_rate
from psi_optax.groups import Plan
from psi_optax.groups.types import Leaves, Scalars
from psi_optax.transforms.contract import on_groups
from psi_optax.transforms.states import find_states


class MonitorGroupsState(NamedTuple):
    """What `monitor_groups` saw at the last step; zeros before the first.

    Each but the count is {group name: float32 scalar}. The name of a group is
    the path of its leaf, or of the first of its tied leaves.

    Attributes:
        count: steps taken; shape=(), dtype=int32.
        rotation: RMS over the leaf's groups, radians.
        norm_min: least norm of the weights before the update.
        norm_max: greatest norm of the weights before the update.
        radial_fraction: |radial part of the update| / |update|.
        effective_learning_rate: mean over groups; None without a rate.
    """

    count: jax.typing.ArrayLike
    rotation: Any
    norm_min: Any
    norm_max: Any
    radial_fraction: Any
    effective_learning_rate: Any


def monitor_groups(
    groups: Any,
    *,
    learning_rate: optax.ScalarOrSchedule | None = None,
    degree: float | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Watches the groups, and passes updates through unchanged.

    It goes last in a chain, where updates are what will be added to params.
    It costs three inner products a group, of updates that a compiled step has
    to write down for them. Read its state by `read_monitor`, or one quantity by
    `optax.tree.get(state, "rotation")`.

    The rotation is computed from the inner products alone: of an update whose
    radial part is by far the larger, angles below 3e-4 of it are rounding.
    Inside `shard_map` it sees all shards' groups, unless `check_vma=False`
    hides from it that there are shards: then each device's own.

    Args:
        groups: scale groups in any form.
        learning_rate: a number or a schedule, the optimizer's; None for no
            effective learning rate in the state.
        degree: of the optimizer's update, together with a rate: -1 for SGD, 0
            for Adam, 1 for `psi`, as in `effective_learning_rate`.

    Returns:
        A transform that needs params, with a `MonitorGroupsState`.

    Raises:
        TypeError: the learning rate or the degree is no number.
        ValueError: a learning rate without a degree, or a degree without a
            learning rate; groups do not fit params; params are missing in
            `update`.

    Examples:
        >>> from psi_optax import ScaleGroup
        >>> tx = optax.chain(optax.sgd(1.0), monitor_groups(ScaleGroup(0)))
        >>> w = jnp.array([3.0, 4.0])
        >>> _, state = tx.update(jnp.array([-4.0, 3.0]), tx.init(w), w)
        >>> print(optax.tree.get(state, "rotation")[""].round(4))
        0.7854

    References:
        Kosson, Messmer and Jaggi, [Rotational
        equilibrium](https://arxiv.org/abs/2305.17212), ICML 2024, on why
        rotation is the quantity to watch.
    """
    if learning_rate is not None:
        learning_rate = check_learning_rate(learning_rate)
    if degree is not None:
        check_number("degree", degree)
    if (learning_rate is None) != (degree is None):
        raise ValueError(
            f"degree={degree!r}: give the degree of the optimizer's update"
            " (-1 for SGD, 0 for Adam, 1 for psi) together with its"
            " learning_rate, or neither."
        )

    def init(plan: Plan, _: Leaves) -> MonitorGroupsState:
        names = plan.group_shapes
        # A leaf in place of an empty dictionary, for the reason that there is
        # in `transforms.base.initial_radius`.
        zeros = {name: _zero() for name in names} or _zero()
        return MonitorGroupsState(
            count=jnp.zeros([], jnp.int32),
            rotation=zeros,
            norm_min=zeros,
            norm_max=zeros,
            radial_fraction=zeros,
            effective_learning_rate=None if learning_rate is None else zeros,
        )

    def update(plan: Plan, u: Leaves, w: Leaves, state: MonitorGroupsState):
        count = optax.safe_increment(state.count)
        if not plan.leaves:
            return u, state._replace(count=count)
        norms = geometry.norm(plan, w)
        radial = jax.tree.map(geometry.safe_divide, plan.dot(w, u), norms)
        across = jax.tree.map(_across, plan.dot(u, u), radial)
        rates = None
        if learning_rate is not None:
            rates = _rates(learning_rate, state.count, norms, degree)
        return _released(plan, u, across), MonitorGroupsState(
            count=count,
            rotation=_each(_rotation, norms, radial, across),
            norm_min=_each(_least, norms),
            norm_max=_each(_most, norms),
            radial_fraction=_each(_fraction, radial, across),
            effective_learning_rate=_each(_mean, rates),
        )

    return on_groups(groups, update, kind=MonitorGroupsState, init=init)


def _released(plan: Plan, u: Leaves, seen: Scalars) -> Leaves:
    """The same updates, but not before they were looked at.

    A compiled step that writes the new weights over the old would otherwise do
    so first, having made a copy of the old ones to look at: measured on the
    CPU, that tripled the time of psi's step on one large leaf.
    """
    wait = jax.lax.optimization_barrier
    return {
        leaf.path: wait((u[leaf.path], seen[leaf.name]))[0]
        for leaf in plan.leaves
    }


def _zero():
    return jnp.zeros([], jnp.float32)


def _rates(learning_rate, count, norms: Scalars, degree) -> Scalars:
    rate = learning_rate(count) if callable(learning_rate) else learning_rate
    return {
        name: effective_rate(rate, norm, degree) for name, norm in norms.items()
    }


def _each(function, *scalars: Scalars | None) -> Any:
    """One float32 a name, from its groups; an empty leaf has none."""

    def summarize(*x):
        return function(*x).astype(jnp.float32) if x[0].size else _zero()

    return jax.tree.map(summarize, *scalars)


def _across(square, radial):
    """The squared length of the tangent part."""
    return jnp.maximum(square - radial * radial, 0)


def _shards(x: jax.Array) -> tuple[str, ...]:
    """The manual mesh axes over which x differs."""
    return tuple(sorted(jax.typeof(x).manual_axis_type.varying))


def _total(x: jax.Array) -> jax.Array:
    return jax.lax.psum(jnp.sum(x), _shards(x)) if _shards(x) else jnp.sum(x)


def _least(x: jax.Array) -> jax.Array:
    return jax.lax.pmin(jnp.min(x), _shards(x)) if _shards(x) else jnp.min(x)


def _most(x: jax.Array) -> jax.Array:
    return jax.lax.pmax(jnp.max(x), _shards(x)) if _shards(x) else jnp.max(x)


def _mean(x: jax.Array) -> jax.Array:
    return _total(x) / _total(jnp.ones_like(x))


def _rotation(norm, radial, across):
    # Of groups that have a direction.
    angle = jnp.arctan2(jnp.sqrt(across), norm + radial)
    square = _total(jnp.where(norm == 0, 0, angle * angle))
    return jnp.sqrt(
        geometry.safe_divide(square, _total((norm != 0).astype(norm.dtype)))
    )


def _fraction(radial, across):
    # Not by |u| itself: XLA turns the sum of sums into one over u, for which
    # it keeps all of u's squares.
    inward = _total(radial * radial)
    return jnp.sqrt(geometry.safe_divide(inward, inward + _total(across)))


def read_monitor(opt_state: optax.OptState) -> dict[str, float]:
    """What `monitor_groups` saw, for a logger.

    Args:
        opt_state: the state of any optimizer with a `monitor_groups` anywhere
            in it (of NNX's optimizer, `optimizer.opt_state`). Not a traced
            one: numbers are fetched from the device.

    Returns:
        A flat dictionary, {"rotation/hidden/kernel": 0.01, ...}, whose keys
        begin with a field of `MonitorGroupsState`.

    Raises:
        ValueError: there is no monitor in it, or there are two of one group;
            the state is of several steps or seeds.

    Examples:
        >>> from psi_optax import ScaleGroup
        >>> tx = monitor_groups({"hidden": ScaleGroup(0)})
        >>> w = {"hidden": jnp.array([3.0, 4.0])}
        >>> _, state = tx.update(w, tx.init(w), w)
        >>> read_monitor(state)["norm_max/hidden"]
        5.0
    """
    states = find_states(opt_state, MonitorGroupsState)
    if not states:
        raise ValueError(
            "there is no monitor in this state: put monitor_groups(groups) last"
            " into the chain that it is the state of."
        )
    flat: dict[str, float] = {}
    if any(jnp.ndim(state.count) for state in states):
        raise ValueError(
            "this state is of several steps or seeds together: take one of"
            " them, as by jax.tree.map(lambda x: x[0], state)."
        )
    for state in jax.device_get(states):
        seen = {
            f"{field}/{name}": float(value)
            for field, values in state._asdict().items()
            if isinstance(values, dict)
            for name, value in values.items()
        }
        twice = sorted(flat.keys() & seen.keys())
        if twice:
            raise ValueError(f"two monitors watch {twice[0]!r}: keep one.")
        flat |= seen
    return flat
