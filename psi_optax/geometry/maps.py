r"""The geometry of scale groups: norm, tangent space, transport, angle.

A group w has radius \(r = |w|\) and direction \(v = w/r\), a point of the unit
sphere. Each function takes a `psi_optax.groups.Plan`, which sums over groups,
and leaves as dictionaries from path to array. Scalars of groups are
dictionaries from group name to an array of the group shape. Results are in the
accumulation dtype (float32, or float64 for float64 leaves).

A group of norm zero has no direction: every function here leaves it unchanged.
No function divides by zero, so derivatives through them are free of NaN.
"""

import jax
import jax.numpy as jnp

from psi_optax.geometry._scheduling import barrier
from psi_optax.geometry.numerics import safe_divide, safe_sqrt
from psi_optax.groups.plan import Plan
from psi_optax.groups.reductions import to_accumulator
from psi_optax.groups.types import Leaves, Scalars


def norm(plan: Plan, w: Leaves) -> Scalars:
    """Return the Euclidean norm of every group."""
    return jax.tree.map(safe_sqrt, barrier(plan.dot(w, w)))


def scale(plan: Plan, u: Leaves, factor: Scalars) -> Leaves:
    """Multiply every group by its factor; a factor of zero gives zero.

    The rule for zero matters if u is non-finite, as is the gradient of a
    normalization layer after weights that vanish.
    """
    return jax.tree.map(
        lambda x, f: jnp.where(f == 0, 0, f * to_accumulator(x)),
        u,
        plan.broadcast(factor),
    )


def direction(plan: Plan, w: Leaves, norms: Scalars) -> Leaves:
    """Divide every group by its norm; zero for a norm of zero."""
    inverse = jax.tree.map(lambda r: safe_divide(jnp.ones_like(r), r), norms)
    return scale(plan, w, inverse)


def center(plan: Plan, u: Leaves) -> Leaves:
    """Subtract the mean of every group."""
    # A number, by which the finder recognizes a mean.
    mean = {
        name: total / max(plan.sizes[name], 1)
        for name, total in barrier(plan.sum(u)).items()
    }
    return jax.tree.map(
        lambda x, m: to_accumulator(x) - m, u, plan.broadcast(mean)
    )


def project_to_tangent(
    plan: Plan, w: Leaves, u: Leaves, *, centered: bool = False
) -> Leaves:
    r"""Remove the radial part: \(u - w \langle w, u\rangle / |w|^2\).

    Centered, the space is tangent to the sphere and of mean zero: the mean is
    removed, and the part along the centered weights.
    """
    if centered:
        w, u = center(plan, w), center(plan, u)
    radial = jax.tree.map(safe_divide, plan.dot(w, u), plan.dot(w, w))
    return jax.tree.map(
        lambda x, y, q: to_accumulator(x) - q * to_accumulator(y),
        u,
        w,
        plan.broadcast(radial),
    )


def project_to_sphere(plan: Plan, w: Leaves, radius: Scalars) -> Leaves:
    r"""Return the nearest point of the sphere: \(R\, w/|w|\)."""
    factor = jax.tree.map(rescaling_factor, radius, norm(plan, w))
    return jax.tree.map(
        lambda x, f: f * to_accumulator(x), w, plan.broadcast(factor)
    )


def rescaling_factor(radius: jax.Array, norm: jax.Array) -> jax.Array:
    """Return the factor that brings a norm to a radius: 1 for a norm of zero.

    It is NaN for an infinite norm, also of finite weights whose squares
    overflow: nothing silently becomes zero.
    """
    zero = norm == 0
    return safe_divide(jnp.where(zero, 1, radius), jnp.where(zero, 1, norm))


def transport(plan: Plan, old: Leaves, new: Leaves, x: Leaves) -> Leaves:
    r"""Transport x in parallel from old to new, along the shortest geodesic.

    For x tangent at old that is a reflection: in the direction \(b = v + v'\)
    halfway between the two,

    \[x \mapsto x - 2\,b\,\langle b, x\rangle / |b|^2.\]

    The result is tangent at new and has the norm of x. At v' = -v no geodesic
    is the shortest, and x is returned. At an angle of \(\pi - \delta\) the norm
    of b is \(\delta\), and the direction of the result is off by up to
    \(4\,\varepsilon/\delta\): in float32 by 0.4 at \(\delta = 10^{-6}\). The
    rounding of the weights alone rotates it by \(\varepsilon/\delta\).

    References:
        Cho and Lee, [Riemannian approach to batch
        normalization](https://arxiv.org/abs/1709.09603), 2017, for the
        transport along a step; this is the same, by the step's ends.
    """
    half = jax.tree.map(
        lambda x, y, r, s: (
            safe_divide(to_accumulator(x), r)
            + safe_divide(to_accumulator(y), s)
        ),
        old,
        new,
        plan.broadcast(norm(plan, old)),
        plan.broadcast(norm(plan, new)),
    )
    along = jax.tree.map(
        lambda q, n: safe_divide(2 * q, n),
        plan.dot(half, x),
        plan.dot(half, half),
    )
    return jax.tree.map(
        lambda x, b, q: to_accumulator(x) - q * b,
        x,
        half,
        plan.broadcast(along),
    )


def angle(plan: Plan, old: Leaves, new: Leaves) -> Scalars:
    r"""Return the angle between old and new directions, in radians.

    \(\mathrm{atan2}(|\Delta_\perp|, \langle v, w'\rangle)\) with
    \(\Delta = w' - w\), which is exact for weights that are close. An arccos
    would lose every angle below the square root of the precision. The angle is
    zero for identical weights, and NaN if exactly one of the two is zero.
    """
    change = jax.tree.map(
        lambda x, y: to_accumulator(y) - to_accumulator(x), old, new
    )
    across = norm(plan, project_to_tangent(plan, old, change))
    radius = norm(plan, old)
    along = jax.tree.map(
        lambda r, q: r + safe_divide(q, r), radius, plan.dot(old, change)
    )
    return jax.tree.map(
        lambda a, b, r, n: jnp.where(
            (r == 0) != (n == 0), jnp.nan, jnp.arctan2(a, b)
        ),
        across,
        along,
        radius,
        norm(plan, new),
    )
