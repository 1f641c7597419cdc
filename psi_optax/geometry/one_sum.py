r"""One step of a scale group by one sum, for a known norm and radial part.

Let s = |w|, v = w/s, d a direction with the radial part \(p = \langle v,
d\rangle\), c the rate and R the radius. The step by projection goes to the
sphere along \(v + t\), \(t = c\,(d - p\,v)\), which has the direction of

\[u = w + c' d, \qquad c' = \frac{c\,s}{1 - c\,p}.\]

So the new weights are R u/|u|, and |u| is the one sum over weights. An error of
p changes the length of the step, but not the norm of the new weights. With
\(N = |u|^2\),

\[w' = w + A\,w + (1 + A)\,c' d, \qquad A = \frac{R^2 - N}{|u|\,(R + |u|)},
\qquad \langle v', d\rangle = \frac{(N - s^2)/c' - s\,p}{|u|}.\]

Every formula is homogeneous: multiplying w, s and R by a power of two
multiplies w' by it, to the last bit.
"""

import functools

import jax
import jax.numpy as jnp

from psi_optax.geometry._scheduling import barrier
from psi_optax.geometry.numerics import (
    replace_value,
    widen_by_bits,
)
from psi_optax.geometry.rounding import (
    ON_SPHERE_TOLERANCE,
    ROUNDING_GAIN,
    SUM_ROUNDINGS,
)
from psi_optax.groups.plan import Plan
from psi_optax.groups.reductions import to_accumulator
from psi_optax.groups.types import Leaves, Scalars

# Of 1 - c p. Beyond them the step is radial by half a radius, and an error of p
# could reverse it.
_LEAST, _MOST = 0.125, 8.0


def one_sum_step(
    plan: Plan,
    w: Leaves,
    d: Leaves,
    rate: Scalars,
    norm: Scalars,
    radial: Scalars,
    radius: Scalars,
    count: Scalars,
) -> tuple[Leaves, Scalars]:
    """Move every group along d on its sphere.

    The rules of `step` hold. That of zero steps is by weight: a weight whose
    direction is exactly zero keeps every bit while its group is on the sphere
    up to rounding. So does a group at a rate of zero, within
    `ON_SPHERE_TOLERANCE`.

    Args:
        plan: the groups.
        w: the weights.
        d: directions (degree 0).
        rate: the factor of d.
        norm: |w|.
        radial: <w, d>/|w|. The angle is off by its error, times the rate and
            the angle itself.
        radius: of each group's sphere, within reach of the norm.
        count: number of weights in each group of a name, of shape ().

    Returns:
        The rounded new weights minus the old, in the dtype of w, and the radial
        part of d at the new weights.
    """
    parts = plan.parts()
    factors = jax.tree.map(_factor, rate, norm, radial)
    means = jax.tree.map(_mean_square, radius, count)
    surplus: Scalars = {
        name: _surplus(
            part.anonymous(),
            [(w[path], d[path]) for path in part.paths],
            factors[name],
            means[name],
        )
        for name, part in parts.items()
    }
    fall = jax.tree.map(_fall, barrier(surplus), factors, radius)
    moved = jax.tree.map(
        _rounded_move,
        w,
        d,
        plan.broadcast(norm),
        plan.broadcast(fall),
        plan.broadcast(factors),
    )
    return moved, jax.tree.map(_radial, fall, factors, norm, radial, radius)


@jax.jit
def _factor(rate: jax.Array, norm: jax.Array, radial: jax.Array) -> jax.Array:
    """Return c'."""
    return rate * norm / jax.lax.clamp(_LEAST, 1 - rate * radial, _MOST)


@jax.jit
def _mean_square(radius: jax.Array, count: jax.Array) -> jax.Array:
    """Return R^2/n."""
    return radius * radius / count


# Equal leaves share one trace, and one function of the lowered program.
@functools.partial(jax.jit, static_argnums=0)
def _surplus(
    part: Plan,
    pairs: list[tuple[jax.Array, jax.Array]],
    factor: jax.Array,
    mean: jax.Array,
) -> jax.Array:
    """Return N - R^2: the sum of u^2 - R^2/n over the n weights of a group.

    The partial sums are smaller than those of u^2, and so is their rounding.

    Args:
        part: the groups of one name.
        pairs: weights and directions of each leaf.
        factor: c'.
        mean: R^2/n.
    """
    (name,) = part.group_shapes
    factors, means = (part.broadcast({name: x}) for x in (factor, mean))
    terms = {}
    for path, (w, d) in zip(part.paths, pairs, strict=True):
        u = to_accumulator(w) + factors[path] * to_accumulator(d)
        terms[path] = u * u - means[path]
    return part.sum(terms)[name]


@jax.jit
def _fall(
    surplus: jax.Array, factor: jax.Array, radius: jax.Array
) -> jax.Array:
    """Return A: a part of it within rounding, and zero for a zero rate.

    See `step` for the part. At N = 0 a group stays where it is.

    Args:
        surplus: N - R^2.
        factor: c'.
        radius: R.
    """
    square = radius * radius + surplus
    length = jnp.sqrt(_select(square > 0, square, 1))
    still = factor == 0
    zone = _choose(
        still, 2 * ON_SPHERE_TOLERANCE, SUM_ROUNDINGS * _eps(square), square
    )
    part = jax.lax.select(
        jnp.abs(surplus) <= zone * square,
        _choose(still, 0, ROUNDING_GAIN, square) * surplus,
        surplus,
    )
    # A quotient last: XLA for CPU computes all else anew for every weight.
    return replace_value(surplus, part) / (-length * (radius + length))


@jax.jit
def _radial(
    fall: jax.Array,
    factor: jax.Array,
    norm: jax.Array,
    radial: jax.Array,
    radius: jax.Array,
) -> jax.Array:
    r"""Return <v', d>; <v, d> if A is within rounding and says nothing of d.

    As \(|u| = R/(1 + A)\), \(N - R^2 = -|u|^2 A\,(2 + A)\).
    """
    whole = 1 + fall
    known = (factor != 0) & (jnp.abs(fall) > _uncertain(fall)) & (radius > 0)
    length = _select(known, radius, 1) / _select(known, whole, 1)
    growth = (radius - norm) * (radius + norm) - length * length * (
        fall * (1 + whole)
    )
    along = growth / _select(known, factor, 1) - norm * radial
    return jax.lax.select(known, along / length, radial)


def _eps(x: jax.Array) -> float:
    return float(jnp.finfo(x.dtype).eps)


def _uncertain(x: jax.Array) -> jax.Array:
    """Return the greatest |A| of a sum that is R^2 up to rounding."""
    return jnp.asarray(SUM_ROUNDINGS * ROUNDING_GAIN * _eps(x), x.dtype)


@jax.jit
def _rounded_move(
    w: jax.Array,
    d: jax.Array,
    norm: jax.Array,
    fall: jax.Array,
    factor: jax.Array,
) -> jax.Array:
    """Return w' - w for w' = w + A w + (1 + A) c' d, rounded; 0 for s = 0."""
    x, d = widen_by_bits(w), widen_by_bits(d)
    still = _select(jnp.abs(fall) > _uncertain(fall), fall, 0)
    along = jnp.where(d == 0, still, fall)
    along = replace_value(jnp.broadcast_to(fall, w.shape), along) * x
    # In a group of norm zero, d may be non-finite.
    moved = along + (factor + factor * fall) * d
    return (x + jnp.where(norm == 0, 0, moved)).astype(w.dtype) - w


def _select(mask: jax.Array, x: jax.Array, y: float) -> jax.Array:
    """Return x, and a number where the mask is false.

    `jnp.where` would be another function in the program for each call.
    """
    return jax.lax.select(mask, x, jnp.full_like(x, y))


def _choose(mask: jax.Array, x: float, y: float, like: jax.Array) -> jax.Array:
    """Return one of two numbers."""
    return jax.lax.select(mask, jnp.full_like(like, x), jnp.full_like(like, y))
