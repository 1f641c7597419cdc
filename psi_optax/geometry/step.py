r"""One step of a scale group on its sphere, in closed form.

Let s = |w|, v = w/s, d a direction (a step of v, to which only its tangent part
contributes), c the rate and R the radius of the sphere. With

\[p = c\,\langle v, d\rangle, \qquad t = c\,d - p\,v, \qquad q = |t|^2
    = c^2(|d|^2 - \langle v, d\rangle^2),\]

a retraction of t at v is \(f(q)\,v + h(q)\,t\), and R times it is

\[w' = w + \alpha\,w + \beta\,d, \qquad
  s\,\alpha = (R - s) + R\,(f - 1 - p\,h), \quad \beta = c\,R\,h.\]

With the radial part of the step kept, as some methods do, the retraction is of
p v + t, and f and h depend on p as well.

Two scalars a group, from \(|w|^2\), \(\langle w,d\rangle\) and \(|d|^2\): w and
d are read twice and nothing of their size is kept. What is small, R - s and
f - 1, is computed without cancellation, so that the norm of w' is off R by
rounding alone and never by a step's history. Every formula is homogeneous:
multiplying w and R by a power of two multiplies w' by it, to the last bit.
"""

import functools
import math
from collections.abc import Callable, Collection

import jax
import jax.numpy as jnp

from psi_optax.geometry._scheduling import in_turn
from psi_optax.geometry.maps import Reduction, norm
from psi_optax.geometry.numerics import replace_value, safe_divide, safe_sqrt
from psi_optax.geometry.rounding import (
    ON_SPHERE_TOLERANCE,
    largest_shrinkage,
    reachable,
    rounded_update,
)
from psi_optax.groups.reductions import to_accumulator
from psi_optax.groups.types import Leaves, Scalars

# From q and p to (f - 1, h).
_Curve = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def _projection(q: jax.Array, _: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(v + t) / |v + t|: rotates by arctan|t|."""
    reach = 1 / jnp.sqrt(1 + q)
    return -q * reach * reach / (1 + reach), reach


def _exponential(q: jax.Array, _: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The geodesic along t: rotates by |t|."""
    # Both are smooth in q at zero, where the root of q is not: the derivatives
    # there are those of the series.
    near = q < _NEAR
    power = jnp.where(near, q, 0)
    fall, sinc = _rotation(q)
    far_fall, far_sinc = _rotation(jnp.where(near, 1, q))
    near_fall, near_sinc = _sum_series(_FALL, power), _sum_series(_SINC, power)
    return (
        replace_value(jnp.where(near, near_fall, far_fall), fall),
        replace_value(jnp.where(near, near_sinc, far_sinc), sinc),
    )


def _sum_series(coefficients: list[float], q: jax.Array) -> jax.Array:
    """Sums a power series, highest power first.

    Not `jnp.polyval`, a scan, whose carry has to be sharded like q.
    """
    return functools.reduce(lambda y, c: y * q + c, coefficients, 0.0 * q)


def _rotation(q: jax.Array) -> tuple[jax.Array, jax.Array]:
    """cos(√q) - 1, without cancellation, and sin(√q) / √q."""
    angle = safe_sqrt(q)
    sinc = jnp.where(q == 0, 1, safe_divide(jnp.sin(angle), angle))
    return -2 * jnp.sin(angle / 2) ** 2, sinc


# The same as power series. Up to a q of 1/4 the next terms are below 1e-19.
_NEAR = 0.25
_FALL = [(-1) ** k / math.factorial(2 * k) for k in range(8, 0, -1)] + [0.0]
_SINC = [(-1) ** k / math.factorial(2 * k + 1) for k in range(8, -1, -1)]


def _additive(q: jax.Array, _: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sum v + t, which leaves the sphere: the PSI paper's, eq. 8."""
    return jnp.zeros_like(q), jnp.ones_like(q)


def _whole_projection(
    q: jax.Array, p: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(v + p v + t) / |v + p v + t|: rotates by arctan(|t| / (1 + p))."""
    length = safe_sqrt((1 + p) ** 2 + q)
    ahead = 1 + p > 0  # Where 1 + p - length cancels.
    fall = jnp.where(
        ahead,
        -safe_divide(q, length * jnp.where(ahead, 1 + p + length, 1)),
        safe_divide(1 + p, length) - 1,
    )
    return fall, safe_divide(jnp.ones_like(q), length)


def _whole_additive(q: jax.Array, p: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sum v + p v + t."""
    return p, jnp.ones_like(q)


_CURVES: dict[tuple[str | None, bool], _Curve] = {
    ("projection", True): _projection,
    ("exponential", True): _exponential,
    (None, True): _additive,
    ("projection", False): _whole_projection,
    (None, False): _whole_additive,
}
RETRACTIONS = ("projection", "exponential", None)

# By how many roundings a sum may be off, and how much of that is corrected: in
# 100,000 steps a quarter left the norms of 4 to 576 weights within 1.4 ulp, all
# of it 2.7 and an eighth 2.3.
_ROUNDINGS = 16
_GAIN = 0.25


def step(
    groups: Reduction,
    w: Leaves,
    d: Leaves,
    rate: Scalars,
    radius: Scalars | None,
    *,
    retraction: str | None = "projection",
    tangent: bool = True,
    square: Scalars | None = None,
    kept: Collection[str] = (),
) -> Leaves:
    """Moves every group along d on its sphere; returns what to add to w.

    Two rules beside the formula. A group of norm zero stays. A group whose
    step is exactly zero stays, to the last bit (but -0.0 becomes 0.0), unless
    it is visibly off its sphere (`ON_SPHERE`), when it is brought onto it. The
    latter rule is one of values: derivatives are those of the formula.

    A sphere far below the weights is approached over several steps, in the
    direction of the formula, see `reachable`.

    A group with something not finite in d becomes not finite, as does one
    whose squared step overflows; no other group is touched. The angle is a
    difference: a radial part of p radii, far beyond what momentum or decay
    bring about, costs the new norm a relative error of up to 4 p²/(1 + q) times
    the precision, until the next steps.

    Args:
        groups: the reduction.
        w: the weights.
        d: directions, in units of the radius (degree 0), of any length.
        rate: what d is multiplied by, a scalar or an array of the group
            shape; minus the learning rate for a direction of ascent.
        radius: the radius of each group's sphere; None for the norm that it
            has, which is what `retraction=None` starts from.
        retraction: "projection", "exponential" or None.
        tangent: whether d counts with its tangent part alone; with
            "exponential" it always does.
        square: the groups' squared norms, where they are known: sums over
            devices are not found to be the same and formed once.
        kept: paths of directions that outlive the step. The others are made
            one after another (`in_turn`).

    Returns:
        The rounded new weights minus the old, in the dtype of w.
    """
    curve = _CURVES[retraction, tangent]

    def move(name: str, group: Reduction, w: Leaves, d: Leaves):
        known = group.dot(w, w)[name] if square is None else square[name]
        dtypes = [x.dtype for x in (*w.values(), *d.values())]
        alpha, beta = _coefficients(
            known,
            group.dot(w, d)[name],
            group.dot(d, d)[name],
            rate[name],
            None if radius is None else radius[name],
            curve,
            largest_shrinkage(dtypes),
        )
        moved = jax.tree.map(
            _combine,
            w,
            d,
            group.broadcast({name: known}),
            group.broadcast({name: alpha}),
            group.broadcast({name: beta}),
        )
        return moved, alpha

    return rounded_update(w, in_turn(groups.parts(), move, w, d, kept))


def exponential(
    groups: Reduction,
    w: Leaves,
    u: Leaves,
    radius: Scalars,
) -> Leaves:
    r"""Follows the great circle along the tangent part of u, for its length.

    \(w \mapsto R\,(v \cos|h| + h/|h| \sin|h|)\) with h the tangent part of
    \(u/|w|\).

    Args:
        groups: the reduction.
        w: the weights.
        u: steps of the weights (degree 1).
        radius: the radius of each group's sphere.

    Returns:
        What to add to w, as from `step`.
    """
    inverse = jax.tree.map(
        lambda s: safe_divide(s.dtype.type(1), s), norm(groups, w)
    )
    return step(groups, w, u, inverse, radius, retraction="exponential")


@functools.partial(jax.jit, static_argnums=(5, 6))
def _coefficients(
    square, inner, length, rate, radius, curve: _Curve, ratio: float
):
    """(alpha, beta) of one group; anything finite for a norm of zero."""
    rate = jnp.asarray(rate, square.dtype)
    s = jnp.sqrt(jnp.where(square == 0, 1, square))
    v_d = inner / s
    # By rounding alone a square is negative; the derivative of a maximum would
    # be half of its own where it is zero, as it is with the step.
    t_t = length - v_d * v_d
    q = rate * rate * replace_value(t_t, jnp.maximum(t_t, 0))
    p = rate * v_d
    fall, reach = curve(q, p)
    if radius is None:
        radius, gap = s, 0
    else:
        # All else is zero with the step; the rounding of R alone is not.
        still = rate * rate * length == 0
        gap = _gap(square, s, radius, still)
        reached = reachable(radius, s, ratio)
        gap = jnp.where(reached == radius, gap, reached - s)
        radius = reached
    return (gap + radius * (fall - p * reach)) / s, rate * radius * reach


def _gap(square, s, radius, still):
    """R - s, or a part of it where it may be no more than rounding.

    A sum of squares is off by a few roundings, at every step by others. Were
    all of that corrected, it would pass into the weights; a part of it, step
    after step, corrects the mean of the last few, and is still enough to keep
    the rounding of the weights from adding up.
    """
    # (R - s) (R + s), without the rounding of the root.
    whole, total = radius * radius - square, radius + s
    off = jnp.abs(whole)
    rounding = _ROUNDINGS * jnp.finfo(s.dtype).eps
    gap = jnp.where(off <= rounding * s * total, _GAIN * whole, whole)
    gap = jnp.where(still & (off <= ON_SPHERE_TOLERANCE * s * total), 0, gap)
    return replace_value(whole, gap) / total


@jax.jit
def _combine(w, d, square, alpha, beta):
    # In a group of norm zero d may be anything.
    change = alpha * to_accumulator(w) + beta * to_accumulator(d)
    return to_accumulator(w) + jnp.where(square == 0, 0, change)
