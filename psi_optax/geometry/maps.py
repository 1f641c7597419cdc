r"""The geometry of scale groups: norm, tangent, retractions, transport, angle.

A group w has radius \(r = |w|\) and direction \(v = w/r\), a point of the unit
sphere. Each function takes a *reduction* (a `psi_optax.groups.Plan`), which
knows the groups, and leaves as dictionaries from path to array; scalars of
groups are dictionaries from group name to an array of the group shape. Results
are in the accumulator's dtype (float32, or float64 for float64 leaves).

A group of norm zero has no direction: every function here leaves it alone, and
none divides by zero, so that derivatives through them are free of NaN.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp

from psi_optax.geometry._scheduling import in_turn
from psi_optax.groups.reductions import to_accumulator
from psi_optax.groups.types import Leaves

Scalars = dict[str, jax.Array]

# A relative distance that no dtype's rounding explains: bfloat16, the coarsest,
# moves a norm by less than half of it.
ON_SPHERE_TOLERANCE = 0.01


class Reduction(Protocol):
    """Inner products per group, and scalars per group laid out over leaves."""

    @property
    def paths(self) -> Sequence[str]:
        """The leaves that have groups."""
        ...

    def parts(self) -> "Mapping[str, Reduction]":
        """The groups of each name by themselves."""
        ...

    def dot(self, a: Leaves, b: Leaves) -> Scalars:
        """One inner product a group."""
        ...

    def spread(self, s: Scalars) -> Leaves:
        """One array a leaf, which broadcasts against it."""
        ...


def norm(groups: Reduction, w: Leaves) -> Scalars:
    """The Euclidean norm of every group."""
    return jax.tree.map(safe_sqrt, groups.dot(w, w))


def scale(groups: Reduction, u: Leaves, factor: Scalars) -> Leaves:
    """Multiplies every group by its factor; a factor of zero gives zero.

    The rule for zero matters where u is not finite, as the gradient of a
    normalization layer is when the weights in front of it vanish.
    """
    return jax.tree.map(
        lambda x, f: jnp.where(f == 0, 0, f * to_accumulator(x)),
        u,
        groups.broadcast(factor),
    )


def center(groups: Reduction, u: Leaves) -> Leaves:
    """Subtracts the mean of every group."""
    ones = jax.tree.map(jnp.ones_like, u)
    mean = jax.tree.map(
        safe_divide, groups.dot(u, ones), groups.dot(ones, ones)
    )
    return jax.tree.map(
        lambda x, m: to_accumulator(x) - m, u, groups.broadcast(mean)
    )


def project_to_tangent(
    groups: Reduction, w: Leaves, u: Leaves, *, centered: bool = False
) -> Leaves:
    r"""Removes the radial part: \(u - w \langle w, u\rangle / |w|^2\).

    Centered, the space is tangent to the sphere and of mean zero: what is
    removed are the mean and the part along the centered weights.
    """
    if centered:
        w, u = center(groups, w), center(groups, u)
    radial = jax.tree.map(safe_divide, groups.dot(w, u), groups.dot(w, w))
    return jax.tree.map(
        lambda x, y, q: to_accumulator(x) - q * to_accumulator(y),
        u,
        w,
        groups.broadcast(radial),
    )


def project_to_sphere(groups: Reduction, w: Leaves, radius: Scalars) -> Leaves:
    r"""The nearest point of the sphere: \(R\, w/|w|\)."""
    factor = jax.tree.map(rescaling_factor, radius, norm(groups, w))
    return jax.tree.map(
        lambda x, f: f * to_accumulator(x), w, groups.broadcast(factor)
    )


def rescaling_factor(radius: jax.Array, norm: jax.Array) -> jax.Array:
    """What brings a norm to a radius: 1 for a norm of zero.

    NaN for an infinite norm, of finite weights whose squares overflow as well:
    nothing silently becomes zero.
    """
    return jnp.where(norm == 0, 1, safe_divide(radius, norm))


def retract(
    groups: Reduction,
    w: Leaves,
    u: Leaves,
    radius: Scalars,
    kept: Collection[str] = (),
) -> Leaves:
    r"""The projective retraction \(R\,(w+u)/|w+u|\), for the groups that move.

    Second order: along a tangent step it departs from the exponential map by
    the third power of the angle. A group with \(w + u = 0\), which only a
    radial step can bring about, arrives at zero and has no direction any more.
    Paths in `kept` are those of steps that outlive this one; the others are
    made one after another.
    """

    def move(name: str, group: Reduction, w: Leaves, u: Leaves):
        moved = jax.tree.map(
            lambda x, y: to_accumulator(x) + to_accumulator(y), w, u
        )
        old = norm(group, w)
        factor = jax.tree.map(
            _retraction_factor,
            reachable_radii(group, w, u, {name: radius[name]}),
            norm(group, moved),
            old,
            group.dot(u, u),
        )
        target = jax.tree.map(
            lambda x, y, f, r: jnp.where(r == 0, to_accumulator(x), f * y),
            w,
            moved,
            group.broadcast(factor),
            group.broadcast(old),
        )
        return target, factor[name]

    return in_turn(groups.parts(), move, w, u, kept)


def _retraction_factor(radius, moved, old, step) -> jax.Array:
    """Brings the norm `moved` to the radius; 1 without a step on the sphere.

    Only the value is 1 there: the derivatives are those of the quotient.
    """
    factor = rescaling_factor(radius, moved)
    off = jnp.abs(safe_divide(radius - old, old))
    still = (step == 0) & (off <= ON_SPHERE_TOLERANCE)
    return replace_value(factor, jnp.where(still, 1, factor))


def reachable_radii(
    groups: Reduction, w: Leaves, u: Leaves, radius: Scalars
) -> Scalars:
    """Returns the radius that each group can reach by one update.

    Args:
        groups: the reduction.
        w: the weights.
        u: their updates.
        radius: the radius of each group's sphere.
    """
    norms, parts = norm(groups, w), groups.parts()
    return {
        name: reachable(
            radius[name],
            norms[name],
            largest_shrinkage(
                x[path].dtype for path in part.paths for x in (w, u)
            ),
        )
        for name, part in parts.items()
    }


def reachable(radius: jax.Array, norm: jax.Array, ratio: float) -> jax.Array:
    r"""Bounds a radius from below by the norm over a ratio.

    An update is added to the weights, so that it is off by the rounding of
    these: landing on a sphere that is \(\rho\) times smaller costs a relative
    error of \(\rho\varepsilon/2\), and at \(\rho = 1/\varepsilon\) nothing is
    left of the direction. Hence one step shortens a group at most by the
    `largest_shrinkage` of its dtypes, and farther spheres take several steps.

    Args:
        radius: of any shape. A radius of zero has no direction to keep, and is
            returned.
        norm: like radius.
        ratio: a power of two.

    Returns:
        The radius for this step.
    """
    return jnp.where(radius == 0, 0, jnp.maximum(radius, norm / ratio))


def largest_shrinkage(dtypes: Iterable[jax.typing.DTypeLike]) -> float:
    """Returns the ratio that leaves half of the coarsest dtype's digits.

    A power of two, so that multiplying by powers of two stays exact.

    Examples:
        >>> [largest_shrinkage([x]) for x in ("bfloat16", "float16")]
        [16.0, 32.0]
        >>> [largest_shrinkage([x]) for x in ("float32", "float64")]
        [4096.0, 67108864.0]
    """
    digits = min(jnp.finfo(dtype).nmant + 1 for dtype in dtypes)
    return 2.0 ** (digits // 2)


def rounded_update(w: Leaves, target: Leaves) -> Leaves:
    """What to add to w: the target, rounded to the dtype of w, minus w.

    Rounding first makes w plus the result the rounded target itself; rounding
    the difference would round twice.
    """
    return {path: target[path].astype(x.dtype) - x for path, x in w.items()}


def transport(groups: Reduction, old: Leaves, new: Leaves, x: Leaves) -> Leaves:
    r"""Parallel transport of x from old to new along the shortest great circle.

    For x tangent at old that is a reflection: in the direction \(b = v + v'\)
    halfway between the two,

    \[x \mapsto x - 2\,b\,\langle b, x\rangle / |b|^2.\]

    The result is tangent at new and as long as x. Where v' = -v no circle is
    the shortest, and x stays. At an angle of \(\pi - \delta\) b is as short as
    \(\delta\), and the direction of the result is off by up to
    \(4\,\varepsilon/\delta\): in float32 by 0.4 at \(\delta = 10^{-6}\). The
    rounding of the weights alone turns it by \(\varepsilon/\delta\).

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
        groups.broadcast(norm(groups, old)),
        groups.broadcast(norm(groups, new)),
    )
    along = jax.tree.map(
        lambda q, n: safe_divide(2 * q, n),
        groups.dot(half, x),
        groups.dot(half, half),
    )
    return jax.tree.map(
        lambda x, b, q: to_accumulator(x) - q * b,
        x,
        half,
        groups.broadcast(along),
    )


def angle(groups: Reduction, old: Leaves, new: Leaves) -> Scalars:
    r"""The angle between the directions before and after, in radians.

    \(\mathrm{atan2}(|\Delta_\perp|, \langle v, w'\rangle)\) with
    \(\Delta = w' - w\), whose difference is exact for near weights: no arccos,
    which loses every angle below the square root of the precision. Zero for
    identical weights, and NaN where only one of the two has a direction.
    """
    change = jax.tree.map(
        lambda x, y: to_accumulator(y) - to_accumulator(x), old, new
    )
    across = norm(groups, project_to_tangent(groups, old, change))
    radius = norm(groups, old)
    along = jax.tree.map(
        lambda r, q: r + safe_divide(q, r), radius, groups.dot(old, change)
    )
    return jax.tree.map(
        lambda a, b, r, n: jnp.where(
            (r == 0) != (n == 0), jnp.nan, jnp.arctan2(a, b)
        ),
        across,
        along,
        radius,
        norm(groups, new),
    )


@jax.custom_jvp
def replace_value(smooth: jax.Array, value: jax.Array) -> jax.Array:
    """Returns the value, with the derivatives of `smooth` of every order.

    Rules for rounding and for zero steps change a value by no more than its
    rounding, but would change its derivative entirely.
    """
    del smooth
    return value


@replace_value.defjvp
def _derivative_of_smooth(primals, tangents):
    return replace_value(*primals), tangents[0]


def safe_sqrt(x: jax.Array) -> jax.Array:
    """The square root, with derivative zero at zero. NaN stays NaN."""
    zero = x == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))


def safe_divide(x: jax.Array, y: jax.Array) -> jax.Array:
    """The quotient, and zero where the denominator is zero.

    NaN where it is infinite: a sum of squares that has overflowed.
    """
    zero = y == 0
    quotient = x / jnp.where(zero, 1, y)
    return jnp.where(zero, 0, jnp.where(jnp.isinf(y), jnp.nan, quotient))
