r"""A step along a great circle that transports its momentum, without memory.

Let m be tangent at v and t = c m the step, of length \(\theta = |t|\). It leads
along a great circle to \(v' = \cos\theta\,v + \frac{\sin\theta}{\theta}\,t\).
Parallel transport along it rotates the plane of v and m by \(\theta\):

\[T m = \cos\theta\,m - \frac{\sin\theta}{\theta}\,c\,|m|^2\,v.\]

These are scalars per group, for any \(\theta\), and no base point is
remembered. Stored is not T m but

\[z = \sigma\,m + \rho\,v, \qquad \sigma = \pm 1, \qquad
  \rho = -\frac{\sin\theta}{\theta}\,\frac{c\,|m|^2}{1 + |\cos\theta|},\]

with the sign of \(\cos\theta\). Its tangent part at v' is T m, and at v it is
\(\sigma m\). The weights hence move along z as they would along m, so z can
take the place of the last momentum before the weights move. From v' and T m
neither v nor m can be told at \(\theta = \pi/2\): both would be copied.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from psi_optax.geometry._scheduling import (
    barrier,
    computed_once,
    once_per_group,
)
from psi_optax.geometry.step import exponential, step
from psi_optax.geometry.sums import StepSums, split_direction
from psi_optax.groups.plan import Plan
from psi_optax.groups.reductions import to_accumulator
from psi_optax.groups.types import Leaves, Scalars


class Momentum(NamedTuple):
    r"""A momentum \(a z + b g\); its tangent part counts.

    Attributes:
        stored: z, as it was stored.
        decay: a, of each group.
        gradient: g.
        gain: b, of each group.
    """

    stored: Leaves
    decay: Scalars
    gradient: Leaves
    gain: Scalars


def transported_step(
    plan: Plan,
    w: Leaves,
    m: Momentum,
    rate: Scalars,
    radius: Scalars | None,
    sums: StepSums,
) -> tuple[Leaves, Leaves]:
    """Move every group along its momentum, and the momentum with it.

    The rules of `step` hold for groups of norm zero, whose momentum becomes
    zero, for zero steps, small spheres and non-finite gradients.

    Args:
        plan: the groups.
        w: the weights.
        m: the momentum, in units of the radius (degree 0), of any length.
        rate: the factor of each group's momentum in its step.
        radius: of each group's sphere; None for the current norm.
        sums: of w and m, see `momentum_sums`.

    Returns:
        The rounded new weights minus the old, in the dtype of w, and the
        momentum to store, in its dtype. The tangent part of the latter at the
        new weights is the transported momentum.
    """
    sign: Scalars = {}
    factor: Scalars = {}
    inner: Scalars = {}
    length: Scalars = {}
    for name in plan.group_shapes:
        sign[name], factor[name], inner[name], length[name] = _coefficients(
            *(x[name] for x in sums), rate[name]
        )
    z = _store(plan, w, m, sign, factor, sums.square)
    moved = step(
        plan,
        w,
        z,
        once_per_group(jax.tree.map(jnp.multiply, sign, rate), sums.square),
        radius,
        retraction="exponential",
        sums=StepSums(sums.square, inner, length),
    )
    return moved, z


def momentum_sums(
    plan: Plan, m: Momentum, square: Scalars, w_z: Scalars, w_g: Scalars
) -> StepSums:
    """Return the sums of weights and a momentum.

    Args:
        plan: the groups.
        m: the momentum.
        square: the squared norms of the weights.
        w_z: the inner products of the weights with what is stored.
        w_g: the inner products of the weights with the gradient.
    """
    decay = once_per_group(m.decay, square)
    total = _combine(plan, (m.stored, decay), (m.gradient, m.gain))
    inner = {
        name: m.decay[name] * w_z[name] + m.gain[name] * w_g[name]
        for name in square
    }
    return StepSums(square, inner, barrier(plan.dot(total, total)))


def _combine(plan: Plan, *terms: tuple[Leaves, Scalars]) -> Leaves:
    """Return the sum of leaves, each with a factor per group."""
    scaled = [
        jax.tree.map(
            lambda x, f: f * to_accumulator(x), leaves, plan.broadcast(factor)
        )
        for leaves, factor in terms
    ]
    return jax.tree.map(lambda *x: functools.reduce(jnp.add, x), *scaled)


def _store(
    plan: Plan,
    w: Leaves,
    m: Momentum,
    sign: Scalars,
    factor: Scalars,
    square: Scalars,
) -> Leaves:
    """Return the sign times m plus the factor times w; zero for w of zero."""
    # Not the sign times m: XLA would write m out for its two uses.
    decay, gain = (
        jax.tree.map(jnp.multiply, sign, x) for x in (m.decay, m.gain)
    )
    total = _combine(
        plan,
        (m.stored, once_per_group(decay, square)),
        (m.gradient, once_per_group(gain, square)),
        (w, once_per_group(factor, square)),
    )

    return jax.tree.map(_rounded, total, m.stored, w, plan.broadcast(square))


def _rounded(
    x: jax.Array, stored: jax.Array, w: jax.Array, square: jax.Array
) -> jax.Array:
    """Return x in the dtype of the last momentum; zero for w of norm zero."""
    # The gradient of a group of norm zero may be non-finite.
    return computed_once(jnp.where(square == 0, 0, x).astype(stored.dtype), w)


@jax.jit
def _coefficients(
    square: jax.Array, inner: jax.Array, length: jax.Array, rate: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Return the sign of m in z, the factor of w in z, and the sums of w and z.

    These are their inner product and the squared norm of z.
    """
    s, radial, t_t = split_direction(square, inner, length)
    q = rate * (rate * t_t)
    fall, sinc = exponential(q, q)
    sign = jnp.where(1 + fall < 0, -1, 1).astype(s.dtype)
    along = -sinc * (rate * t_t) / (1 + jnp.abs(1 + fall))
    factor = (along - sign * radial) / s
    return sign, factor, s * along, t_t + along * along
