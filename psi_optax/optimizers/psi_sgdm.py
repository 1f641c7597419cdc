"""SGD with the momentum of the PSI paper, which is of degree 1."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from psi_optax import geometry
from psi_optax._validation import (
    check_choice,
    check_decay,
    check_learning_rate,
)
from psi_optax.geometry._scheduling import barrier
from psi_optax.groups import Groups, Plan, Tree
from psi_optax.optimizers._ordinary import with_ordinary
from psi_optax.optimizers._warnings import warn_without_groups
from psi_optax.optimizers.psi import signed_rate
from psi_optax.transforms.contract import (
    cast_like,
    floating_transform,
    stateful_transform,
)
from psi_optax.transforms.radius import (
    Radius,
    check_radius,
    initial_radius,
    radius_for,
    sphere_radius,
)


class PsiSgdmState(NamedTuple):
    """State of `psi_sgdm`.

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
    groups: Groups,
    *,
    momentum: jax.typing.ArrayLike = 0.9,
    ordinary: optax.GradientTransformation | None = None,
    radius: Radius = "init",
    retraction: str | None = "projection",
) -> optax.GradientTransformationExtraArgs:
    r"""Run SGD with the momentum of the PSI paper.

    \[u \leftarrow \mu u - \eta\,r^2 g, \qquad w \leftarrow w + u.\]

    The momentum is of degree 1: it grows and shrinks with the weights.
    Therefore the retraction of w + u to the sphere multiplies it by the same
    factor. It is neither projected nor transported. The directions are those of
    the paper's additive update, which `retraction=None` gives.
    `psi_sgd(..., momentum=...)` is the alternative with a state of degree 0.

    Args:
        learning_rate: a number or a schedule; it is inside the momentum.
        groups: scale groups in any form.
        momentum: the decay \(\mu\), in [0, 1).
        ordinary: see `psi`. Without it ordinary parameters follow SGD with the
            same learning rate and momentum.
        radius: see `psi`.
        retraction: "projection" or None.

    Returns:
        A transform that needs params, with a `PsiSgdmState`, inside a
        partition if `ordinary` is given.

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

    def init(plan: Plan, params: Tree) -> PsiSgdmState:
        return PsiSgdmState(
            count=jnp.zeros([], jnp.int32),
            radius=initial_radius(radius, plan, plan.select(params)),
            momentum=optax.tree.zeros_like(params),
        )

    def update(
        plan: Plan,
        updates: Tree,
        state: PsiSgdmState,
        params: Tree,
        **extra_args: Any,
    ) -> tuple[Tree, PsiSgdmState]:
        del extra_args
        w, g = plan.select(params), plan.select_steps(updates)
        square = barrier(plan.dot(w, w))
        r = jax.tree.map(geometry.safe_sqrt, square)
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
        u = buffer = plan.select(steps, "updates")
        if retraction is not None:
            sphere = sphere_radius(radius, state.radius, plan)
            sums = geometry.retraction_sums(plan, w, u, square)
            factor = geometry.retraction_factor(plan, w, u, sphere, sums)
            buffer = geometry.scale(plan, u, factor)
            u = geometry.apply_retraction_factor(plan, w, u, factor, sums)
        return plan.merge(steps, cast_like(u, g)), PsiSgdmState(
            optax.safe_increment(state.count),
            state.radius,
            jax.tree.map(
                lambda m, x: x.astype(m.dtype),
                state.momentum,
                plan.merge(steps, buffer),
            ),
        )

    tx = stateful_transform(groups, update, kind=PsiSgdmState, init=init)
    if ordinary is not None:
        tx = floating_transform(with_ordinary(tx, ordinary, groups), groups)
    return warn_without_groups(tx, groups)
