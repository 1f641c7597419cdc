"""Monitor of groups, as the last transform of a chain."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from psi_optax import geometry
from psi_optax._validation import check_learning_rate, check_number
from psi_optax.diagnostics import _shards
from psi_optax.diagnostics.effective_learning_rate import rate_at_norm
from psi_optax.groups import Groups, Leaves, Plan, Scalars
from psi_optax.transforms.contract import grouped_transform
from psi_optax.transforms.state_checks import read_states


class MonitorGroupsState(NamedTuple):
    """State of `monitor_groups`: quantities of the last step, zeros before it.

    Each but the count is {group name: float32 scalar}. The name of a group is
    the path of its leaf, or of the first of its tied leaves. Without groups
    each is a scalar.

    Attributes:
        count: steps taken; shape=(), dtype=int32.
        rotation: RMS over the leaf's groups, radians.
        norm_min: least norm of the weights before the update.
        norm_max: greatest norm of the weights before the update.
        radial_fraction: |radial part of the update| / |update|.
        effective_learning_rate: mean over groups; None without a learning rate.
    """

    count: ArrayLike
    rotation: Scalars | jax.Array
    norm_min: Scalars | jax.Array
    norm_max: Scalars | jax.Array
    radial_fraction: Scalars | jax.Array
    effective_learning_rate: Scalars | jax.Array | None


def monitor_groups(
    groups: Groups,
    *,
    learning_rate: optax.ScalarOrSchedule | None = None,
    degree: float | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Measure the groups in the state, and return updates unchanged.

    It belongs last in a chain, where updates are the final change of params. It
    costs three inner products per group, and makes a compiled step store the
    updates for them. Directly after a step of this package in the same compiled
    function, with the same groups and weights of float32 or float64, it costs
    one at most: the step knows the rest. Values then are those before the new
    weights are rounded, which turns float32 weights by 3e-8 radians. Those of
    `psi_sgd` assume tangent gradients, where its sum does not show otherwise.

    The rotation is computed from the inner products alone: in an almost radial
    update, a tangent part below 3e-4 of its length is rounding error. Inside
    `shard_map` the quantities are over the groups of all shards; with
    `check_vma=False`, which hides the shards, over the groups of each device.

    Args:
        groups: scale groups in any form.
        learning_rate: of the optimizer; a number or a schedule. None for no
            effective learning rate in the state.
        degree: of the optimizer's update, given together with a learning rate:
            -1 for SGD, 0 for Adam, 1 for `psi`, see `effective_learning_rate`.

    Returns:
        A transform that needs params, with a `MonitorGroupsState`.

    Raises:
        TypeError: the learning rate is neither a number nor a schedule; the
            degree is not a number.
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
        equilibrium](https://arxiv.org/abs/2305.17212), ICML 2024, on rotation
        as a measure of training.
    """
    learning_rate = _check_rate(learning_rate, degree)

    def init(plan: Plan, _: Leaves) -> MonitorGroupsState:
        # Without groups a scalar, see `state_or_placeholder`.
        zeros = {name: _zero() for name in plan.group_shapes} or _zero()
        return MonitorGroupsState(
            count=jnp.zeros([], jnp.int32),
            rotation=zeros,
            norm_min=zeros,
            norm_max=zeros,
            radial_fraction=zeros,
            effective_learning_rate=None if learning_rate is None else zeros,
        )

    def update(
        plan: Plan, u: Leaves, w: Leaves, state: MonitorGroupsState
    ) -> tuple[Leaves, MonitorGroupsState]:
        count = optax.safe_increment(state.count)
        if not plan.leaves:
            return u, state._replace(count=count)
        u, parts = geometry.update_parts(plan, w, u)
        rates = _effective_rates(learning_rate, state.count, parts.norm, degree)
        seen = jax.tree.map(_summary, *parts)
        return u, MonitorGroupsState(
            count,
            *({name: x[i] for name, x in seen.items()} for i in range(4)),
            effective_learning_rate=None
            if rates is None
            else jax.tree.map(_mean, rates),
        )

    return grouped_transform(groups, update, kind=MonitorGroupsState, init=init)


def _check_rate(
    learning_rate: optax.ScalarOrSchedule | None, degree: float | None
) -> optax.ScalarOrSchedule | None:
    """Return the learning rate, given together with a degree or not at all."""
    if learning_rate is not None:
        learning_rate = check_learning_rate(learning_rate)
    if degree is not None:
        check_number("degree", degree)
    if (learning_rate is None) != (degree is None):
        raise ValueError(
            f"degree={degree!r} and learning_rate belong together: pass both or"
            " neither. The degree of the optimizer's update is -1 for SGD, 0"
            " for Adam, 1 for psi."
        )
    return learning_rate


def _zero() -> jax.Array:
    return jnp.zeros([], jnp.float32)


def _effective_rates(
    learning_rate: optax.ScalarOrSchedule | None,
    count: ArrayLike,
    norms: Scalars,
    degree: float | None,
) -> Scalars | None:
    """Return the effective learning rate of each group, None without a rate."""
    if learning_rate is None or degree is None:
        return None
    rate = learning_rate(count) if callable(learning_rate) else learning_rate
    return {
        name: rate_at_norm(rate, norm, degree) for name, norm in norms.items()
    }


def _mean(x: jax.Array) -> jax.Array:
    """Return the float32 mean of scalars of groups, 0 of none."""
    return _shards.mean(x).astype(jnp.float32) if x.size else _zero()


def _summary(
    norm: jax.Array, radial: jax.Array, tangent: jax.Array
) -> list[jax.Array]:
    """Return four fields of `MonitorGroupsState`, in order, for one name.

    All sums are taken at once, which on a CPU costs half the time.
    """
    if norm.size == 0:
        return [_zero()] * 4
    angle = jnp.arctan2(jnp.sqrt(tangent), norm + radial)
    alive = norm != 0
    squares = jnp.where(alive, angle * angle, 0)
    square, groups, inward, across = _shards.totals(
        squares, alive.astype(norm.dtype), radial * radial, tangent
    )
    return [
        x.astype(jnp.float32)
        for x in (
            jnp.sqrt(geometry.safe_divide(square, groups)),
            _shards.minimum(norm),
            _shards.maximum(norm),
            jnp.sqrt(geometry.safe_divide(inward, inward + across)),
        )
    ]


def read_monitor(opt_state: optax.OptState) -> dict[str, float]:
    """Return the quantities of `monitor_groups`, for a logger.

    Args:
        opt_state: the state of any optimizer with `monitor_groups` anywhere in
            it (for NNX, `optimizer.opt_state`). It must not be traced: its
            numbers are fetched from the device.

    Returns:
        A flat dictionary, {"rotation/hidden/kernel": 0.01, ...}. Its keys
        begin with a field of `MonitorGroupsState`.

    Raises:
        ValueError: the state has no monitor, or two of the same group; it is
            the state of several steps or seeds.

    Examples:
        >>> from psi_optax import ScaleGroup
        >>> tx = monitor_groups({"hidden": ScaleGroup(0)})
        >>> w = {"hidden": jnp.array([3.0, 4.0])}
        >>> _, state = tx.update(w, tx.init(w), w)
        >>> read_monitor(state)["norm_max/hidden"]
        5.0
    """
    states = read_states(
        opt_state,
        MonitorGroupsState,
        "put monitor_groups(groups) last in the chain.",
    )
    flat: dict[str, float] = {}
    for state in jax.device_get(states):
        measured = {
            f"{field}/{name}": float(value)
            for field, values in state._asdict().items()
            if isinstance(values, dict)
            for name, value in values.items()
        }
        twice = sorted(flat.keys() & measured.keys())
        if twice:
            raise ValueError(
                f"two monitors measure {twice[0]!r}: omit one monitor_groups."
            )
        flat |= measured
    return flat
