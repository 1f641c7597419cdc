"""The PSI paper's own momentum, which is of degree 1."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from psi_optax import geometry
from psi_optax._validation import check_choice, check_decay, check_learning_rate
from psi_optax.groups import Plan, make_plan
from psi_optax.groups.types import Leaves, Scalars
from psi_optax.optimizers.psi import signed_rate
from psi_optax.transforms.contract import cast_like, on_floats
from psi_optax.transforms.radius import (
    Radius,
    check_radius,
    initial_radius,
    radius_for,
    sphere_radius,
)


class PsiSgdmState(NamedTuple):
    """What `psi_sgdm` keeps.

    Attributes:
        count: steps taken; shape=(), dtype=int32.
        radius: `{group name: array of the group shape}`, or None.
        momentum: like params, of degree 1.
    """

    count: jax.typing.ArrayLike
    radius: Any
    momentum: optax.Updates


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
        momentum: the decay \(\mu\), in [0, 1).
        radius: see `psi`.
        retraction: "projection" or None.

    Returns:
        A transform that needs params, with a `PsiSgdmState`. Ordinary
        parameters get SGD with the same momentum.

    Raises:
        TypeError: a hyperparameter is of another type.
        ValueError: a hyperparameter is out of its range; see `psi`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> tx = psi_sgdm(0.1, ScaleGroup(axes=0), retraction=None)
        >>> w = jnp.array([2.0, 0.0])
        >>> print(tx.update(jnp.array([0.0, 1.0]), tx.init(w), w)[0])
        [ 0.  -0.4]

    References:
        Yi, [Accelerating training of batch normalization: a manifold
        perspective](https://arxiv.org/abs/2101.02916), UAI 2022, eq. 11.
    """
    learning_rate = check_learning_rate(learning_rate)
    check_decay("momentum", momentum)
    check_radius(radius)
    check_choice("retraction", retraction, ("projection", None))
    radius = radius_for(retraction, radius)

    def init_fn(params):
        plan = make_plan(groups, params)
        return PsiSgdmState(
            count=jnp.zeros([], jnp.int32),
            radius=initial_radius(radius, plan, plan.select(params)),
            momentum=optax.tree.zeros_like(params),
        )

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        plan = make_plan(groups, params)
        sphere = sphere_radius(radius, state.radius, plan)
        w, g = plan.select(params), plan.select_steps(updates)
        r = geometry.norm(plan, w)
        gradient = geometry.scale(plan, geometry.scale(plan, g, r), r)
        rate = signed_rate(learning_rate, state.count)
        steps = jax.tree.map(
            lambda m, x: (
                jnp.asarray(momentum, x.dtype) * m.astype(x.dtype)
                + jnp.asarray(rate, x.dtype) * x
            ),
            state.momentum,
            plan.merge(updates, cast_like(gradient, g)),
        )
        u = plan.select(steps, "updates")
        buffer = u
        if retraction is not None:
            target = geometry.reachable_radii(plan, w, u, sphere or r)
            buffer = _rescaled_with_weights(plan, w, u, target)
            on_sphere = geometry.retract(plan, w, u, target, kept=u)
            u = geometry.rounded_update(w, on_sphere)
        state = PsiSgdmState(
            optax.safe_increment(state.count),
            state.radius,
            jax.tree.map(
                lambda m, x: x.astype(m.dtype),
                state.momentum,
                plan.merge(steps, buffer),
            ),
        )
        return plan.merge(steps, cast_like(u, g)), state

    return on_floats(
        optax.GradientTransformationExtraArgs(init_fn, update_fn),
        groups,
        kind=PsiSgdmState,
    )


def _rescaled_with_weights(
    plan: Plan, w: Leaves, u: Leaves, target: Scalars
) -> Leaves:
    """The step u times the factor that brings w + u to the sphere."""
    moved = jax.tree.map(
        lambda x, y: geometry.widen(x) + geometry.widen(y), w, u
    )
    norms = geometry.norm(plan, moved)
    factor = jax.tree.map(geometry.rescaling_factor, target, norms)
    return geometry.scale(plan, u, factor)
