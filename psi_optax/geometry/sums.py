r"""Sums over groups that determine a step.

They are \(|w|^2\), \(\langle w, d\rangle\) and \(|d|^2\) for weights w and a
direction d. The norm of d and that of its tangent part follow from them, so a
rule that sets the length of a step needs no pass of its own.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from psi_optax.geometry.numerics import replace_value
from psi_optax.groups.plan import Plan
from psi_optax.groups.types import Leaves, Scalars


class StepSums(NamedTuple):
    """Sums over groups of weights w and directions d.

    Attributes:
        square: the squared norm of w.
        inner: the inner product of w and d.
        length: the squared norm of d.
    """

    square: Scalars
    inner: Scalars
    length: Scalars


def step_sums(
    plan: Plan, w: Leaves, d: Leaves, square: Scalars | None = None
) -> StepSums:
    """Return the sums of a step.

    Args:
        plan: the groups.
        w: the weights.
        d: the directions.
        square: the groups' squared norms, if they are known; those of other
            groups are ignored. XLA does not merge equal sums over devices.
    """
    if square is None:
        square = plan.dot(w, w)
    here = {name: square[name] for name in plan.group_shapes}
    return StepSums(here, plan.dot(w, d), plan.dot(d, d))


def split_direction(
    square: jax.Array, inner: jax.Array, length: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    r"""Return the norm of w, and the radial and squared tangent part of d.

    \[s = |w|, \qquad \langle v, d\rangle = \langle w, d\rangle / s, \qquad
      |t|^2 = |d|^2 - \langle v, d\rangle^2.\]

    The last is a difference: its error is a few roundings of \(|d|^2\), hence
    \(|d|^2/|t|^2\) of them relative to itself. A group of norm zero is given
    the norm 1, and is all tangent.
    """
    s = jnp.sqrt(jnp.where(square == 0, 1, square))
    radial = inner / s
    tangent = length - radial * radial
    # A square is negative by rounding alone. The derivative of a maximum would
    # be halved at zero, where the step vanishes.
    return s, radial, replace_value(tangent, jnp.maximum(tangent, 0))
