"""SGD-G and Adam-G: geodesic steps with transported momentum."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from psi_optax import geometry
from psi_optax._validation import (
    check_decay,
    check_learning_rate,
    check_nonnegative,
    check_positive,
)
from psi_optax.geometry._scheduling import barrier
from psi_optax.groups import Groups, Leaves, Plan, Scalars, Tree
from psi_optax.groups.reductions import to_accumulator
from psi_optax.optimizers._ordinary import with_ordinary
from psi_optax.optimizers._warnings import warn_without_groups
from psi_optax.optimizers.psi import PsiState, signed_rate
from psi_optax.transforms.contract import (
    cast_like,
    floating_transform,
    stateful_transform,
)
from psi_optax.transforms.group_norm import clipping_factor
from psi_optax.transforms.moments import (
    ScaleByGroupAdamState,
    initial_group_adam,
    update_group_adam,
)
from psi_optax.transforms.momentum import (
    TransportedTraceState,
    transported_trace,
)
from psi_optax.transforms.radius import (
    Radius,
    check_radius,
    initial_radius,
    sphere_radius,
)
from psi_optax.transforms.state_checks import check_state_type


def sgd_g(
    learning_rate: optax.ScalarOrSchedule,
    groups: Groups,
    *,
    momentum: jax.typing.ArrayLike = 0.9,
    max_norm: jax.typing.ArrayLike | None = 0.1,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
) -> optax.GradientTransformationExtraArgs:
    r"""Run SGD with momentum along geodesics (SGD-G).

    \[d = \mu\,\tau - \eta\,\mathrm{clip}(P\,r g), \qquad
       v \leftarrow \exp_v(d), \qquad \tau \leftarrow T d\]

    with the projection P to the tangent space, the exponential map, and
    parallel transport T to its end. A step of length t rotates a group by t
    radians. The paper starts from weights of norm 1 and sees raw gradients.
    This is the same at norm 1, and equivariant at any norm.

    The momentum is stored where the step ends, and no copy of the weights is
    kept. A group that something else rotates, such as `lookahead` or another
    transform, takes along the part of its momentum that is tangent there; the
    rest is dropped. Rescaling it changes nothing.

    The paper's penalty on the cosines between filters is
    `chain(add_orthogonality(0.1, groups), sgd_g(...))`.

    Args:
        learning_rate: a number or a schedule; it is inside the momentum.
        groups: scale groups in any form.
        momentum: the decay \(\mu\), in [0, 1).
        max_norm: bound of a group's gradient norm in direction space, positive;
            None for no bound. The paper uses 0.1, and a learning rate of 0.2.
        ordinary: see `psi`. Without it ordinary parameters follow momentum with
            the same learning rate. The paper uses
            `optax.sgd(0.01, 0.9, nesterov=True)` and decay for them.
        radius: see `psi`.

    Returns:
        A transform that needs params, with a `PsiState` inside a partition.

    Raises:
        TypeError: a hyperparameter is of another type.
        ValueError: a hyperparameter is out of its range; see `psi`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> tx = sgd_g(jnp.pi / 2, ScaleGroup(axes=0), max_norm=1.0)
        >>> w = jnp.array([2.0, 0.0])
        >>> u, _ = tx.update(jnp.array([0.0, -3.0]), tx.init(w), w)
        >>> print(abs((w + u).round(3)))  # rotated by 90 degrees
        [0. 2.]

    References:
        Cho and Lee, [Riemannian approach to batch
        normalization](https://arxiv.org/abs/1709.09603), 2017, algorithm 2.
    """
    learning_rate = check_learning_rate(learning_rate)
    check_decay("momentum", momentum)

    def init(plan: Plan, params: Tree) -> TransportedTraceState:
        del plan
        return TransportedTraceState(optax.tree.zeros_like(params), None)

    def weigh(
        plan: Plan,
        squares: Scalars,
        rate: jax.typing.ArrayLike,
        state: TransportedTraceState,
    ) -> tuple[_Weights, TransportedTraceState]:
        del squares
        weights = plan.full(momentum), plan.full(rate), plan.full(1)
        return _Weights(*weights), state

    return _on_great_circles(
        _Moments(TransportedTraceState, "trace", init, weigh),
        groups,
        learning_rate=learning_rate,
        max_norm=max_norm,
        ordinary=optax.chain(
            optax.scale_by_learning_rate(learning_rate),
            transported_trace(None, momentum),
        )
        if ordinary is None
        else ordinary,
        radius=radius,
    )


def adam_g(
    learning_rate: optax.ScalarOrSchedule,
    groups: Groups,
    *,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.99,
    eps_root: jax.typing.ArrayLike = 1e-8,
    max_norm: jax.typing.ArrayLike | None = 0.1,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
) -> optax.GradientTransformationExtraArgs:
    r"""Run Adam along geodesics, with one second moment per group (Adam-G).

    The first moment is transported in parallel. The second moment is the mean
    of \(|P\,r g|^2\), one scalar per group, so a step has the direction of the
    momentum (see `scale_by_group_adam`). The first moment is stored as in
    `sgd_g`. A step rotates a group by about
    `learning_rate` radians or less, whatever its size, and by up to 2.4 times
    that while gradients grow.

    Args:
        learning_rate: a number or a schedule.
        groups: scale groups in any form.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps_root: added to the second moment after its bias correction (in the
            paper, before it).
        max_norm: see `sgd_g`.
        ordinary: see `psi`. Without it ordinary parameters follow Adam with the
            same learning rate.
        radius: see `psi`.

    Returns:
        A transform that needs params, with a `PsiState` inside a partition.

    Raises:
        TypeError: a hyperparameter is of another type.
        ValueError: a hyperparameter is out of its range; see `psi`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> tx = adam_g(jnp.pi / 2, ScaleGroup(axes=0))
        >>> w = jnp.array([2.0, 0.0])
        >>> u, _ = tx.update(jnp.array([0.0, -3.0]), tx.init(w), w)
        >>> print(abs((w + u).round(3)))  # rotated by 90 degrees
        [0. 2.]

    References:
        Cho and Lee, [Riemannian approach to batch
        normalization](https://arxiv.org/abs/1709.09603), 2017, algorithm 3.
    """
    learning_rate = check_learning_rate(learning_rate)
    check_decay("b1", b1)
    check_decay("b2", b2)
    check_nonnegative("eps_root", eps_root)

    def weigh(
        plan: Plan,
        squares: Scalars,
        rate: jax.typing.ArrayLike,
        state: ScaleByGroupAdamState,
    ) -> tuple[_Weights, ScaleByGroupAdamState]:
        factors, state = update_group_adam(
            plan, squares, state, b1, b2, 0.0, eps_root
        )
        rates = jax.tree.map(jnp.multiply, plan.full(rate), factors)
        decay = plan.full(b1)
        gain = jax.tree.map(lambda b: 1 - b, decay)
        return _Weights(decay, gain, rates), state

    return _on_great_circles(
        _Moments(ScaleByGroupAdamState, "mu", initial_group_adam, weigh),
        groups,
        learning_rate=learning_rate,
        max_norm=max_norm,
        ordinary=optax.chain(
            optax.scale_by_adam(b1, b2, 0.0, eps_root),
            optax.scale_by_learning_rate(learning_rate),
        )
        if ordinary is None
        else ordinary,
        radius=radius,
    )


class _Weights(NamedTuple):
    """Factors per group: of the last momentum, of the gradient, of the sum.

    The first two make the new momentum, and the last makes the step from it.
    """

    decay: Scalars
    gain: Scalars
    rate: Scalars


class _Moments(NamedTuple):
    """A momentum that is transported, with all else in its state.

    Attributes:
        kind: the class of the state.
        field: of the state, with the momentum.
        init: maps (plan, params) to a state.
        weigh: maps (plan, squared norms of gradients, minus the learning rate,
            state) to weights and the next state but for the momentum.
    """

    kind: type[tuple]
    field: str
    init: Callable[[Plan, Tree], Any]
    weigh: Callable[..., tuple[_Weights, Any]]


def _on_great_circles(
    moments: _Moments,
    groups: Groups,
    *,
    learning_rate: optax.ScalarOrSchedule,
    max_norm: jax.typing.ArrayLike | None,
    ordinary: optax.GradientTransformation,
    radius: Radius,
) -> optax.GradientTransformationExtraArgs:
    """Return a transform of groups, in a partition with ordinary parameters."""
    check_radius(radius)
    if max_norm is not None:
        check_positive("max_norm", max_norm)

    def init(plan: Plan, params: Tree) -> PsiState:
        return PsiState(
            count=jnp.zeros([], jnp.int32),
            radius=initial_radius(radius, plan, plan.select(params)),
            inner=moments.init(plan, params),
        )

    def update(
        plan: Plan,
        updates: Tree,
        state: PsiState,
        params: Tree,
        **extra_args: Any,
    ) -> tuple[Tree, PsiState]:
        del extra_args
        check_state_type(state.inner, moments.kind, "state['inner']")
        sphere = sphere_radius(radius, state.radius, plan)
        trace = getattr(state.inner, moments.field)
        w, g = plan.select(params), plan.select_steps(updates)
        z = plan.select(trace, "momentum")
        square, w_z, w_g = barrier(
            (plan.dot(w, w), plan.dot(w, z), plan.dot(w, g))
        )
        factors, squares = _clip(plan, g, square, w_g, max_norm)
        rate = signed_rate(learning_rate, state.count)
        weights, inner = moments.weigh(plan, squares, rate, state.inner)
        gain = jax.tree.map(jnp.multiply, weights.gain, factors)
        m = geometry.Momentum(z, weights.decay, g, gain)
        sums = geometry.momentum_sums(plan, m, square, w_z, w_g)
        moved, z = geometry.transported_step(
            plan, w, m, weights.rate, sphere, sums
        )
        inner = inner._replace(**{moments.field: plan.merge(trace, z)})
        count = optax.safe_increment(state.count)
        return plan.merge(updates, cast_like(moved, g)), PsiState(
            count, state.radius, inner
        )

    tx = stateful_transform(groups, update, kind=PsiState, init=init)
    both = floating_transform(with_ordinary(tx, ordinary, groups), groups)
    return warn_without_groups(both, groups)


def _clip(
    plan: Plan,
    g: Leaves,
    square: Scalars,
    w_g: Scalars,
    max_norm: jax.typing.ArrayLike | None,
) -> tuple[Scalars, Scalars]:
    """Return the factor of clipped r g in g, and the square of its norm.

    The norm is of the tangent part, zero for a group of norm zero.
    """
    norms = jax.tree.map(geometry.safe_sqrt, square)
    scaled = jax.tree.map(
        lambda x, r: r * to_accumulator(x), g, plan.broadcast(norms)
    )
    length = barrier(plan.dot(scaled, scaled))
    factors: Scalars = {}
    squares: Scalars = {}
    for name, r in norms.items():
        *_, t_t = geometry.split_direction(
            square[name], r * w_g[name], length[name]
        )
        t_t = jnp.where(r == 0, 0, t_t)
        clip = jnp.ones_like(r)
        if max_norm is not None:
            clip = clipping_factor(geometry.safe_sqrt(t_t), max_norm)
        factors[name], squares[name] = clip * r, clip * (clip * t_t)
    return factors, squares
