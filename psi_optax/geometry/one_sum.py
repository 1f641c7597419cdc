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
from typing import NamedTuple

import jax
import jax.numpy as jnp

from psi_optax.geometry._scheduling import apart, barrier
from psi_optax.geometry.numerics import replace_value, safe_divide
from psi_optax.geometry.rounding import ON_SPHERE_TOLERANCE
from psi_optax.geometry.update_parts import UpdateParts, tangent_square
from psi_optax.groups.plan import Plan
from psi_optax.groups.reductions import to_accumulator
from psi_optax.groups.types import Leaves, Scalars

# Of 1 - c p. Beyond them the step is radial by half a radius, and an error of p
# could reverse it.
_LEAST, _MOST = 0.125, 8.0

# Of A, in units of the precision.
_ROUNDINGS = 4


class OneSum(NamedTuple):
    """Scalars of groups that make their step, and a fact for the next one.

    Attributes:
        fall: A.
        factor: c'.
        reach: (1 + A) c'.
        radial: <v', d>, the radial part of d at the new weights.
    """

    fall: Scalars
    factor: Scalars
    reach: Scalars
    radial: Scalars


def one_sum_step(
    plan: Plan,
    w: Leaves,
    d: Leaves,
    rate: Scalars,
    norm: Scalars,
    radial: Scalars,
    radius: Scalars,
    count: Scalars,
) -> tuple[Leaves, OneSum]:
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
        The rounded new weights minus the old, in the dtype of w, and what the
        step is made of.
    """
    known = {
        name: _Known(
            rate[name], norm[name], radial[name], radius[name], count[name]
        )
        for name in plan.group_shapes
    }
    start = {name: _start(x) for name, x in known.items()}
    growth = barrier(
        {
            name: _growth(
                part.anonymous(),
                [(w[path], d[path]) for path in part.paths],
                *start[name],
            )
            for name, part in plan.parts().items()
        }
    )
    step = OneSum({}, {}, {}, {})
    for name, x in known.items():
        scalars = _finish(growth[name], start[name][0], x)
        for field, scalar in zip(step, scalars, strict=True):
            field[name] = scalar
    moved = jax.tree.map(
        _rounded_move,
        w,
        d,
        plan.broadcast(norm),
        plan.broadcast(step.fall),
        plan.broadcast(step.reach),
    )
    return moved, step


def one_sum_parts(
    plan: Plan,
    d: Leaves,
    norm: Scalars,
    radial: Scalars,
    radius: Scalars,
    step: OneSum,
) -> UpdateParts:
    """Return the parts of the update of `one_sum_step`, by one more sum.

    Args:
        plan: the groups.
        d: the directions.
        norm: of the weights.
        radial: of the directions, as given to `one_sum_step`.
        radius: of each group's sphere.
        step: its scalars.
    """
    found = {
        name: _parts(
            x,
            norm[name],
            radial[name],
            radius[name],
            step.fall[name],
            step.reach[name],
        )
        for name, x in barrier(plan.dot(d, d)).items()
    }
    return UpdateParts(
        norm,
        {name: along for name, (along, _) in found.items()},
        {name: across for name, (_, across) in found.items()},
    )


@jax.jit
def _parts(
    length: jax.Array,
    norm: jax.Array,
    radial: jax.Array,
    radius: jax.Array,
    fall: jax.Array,
    reach: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    r"""Return the radial and squared tangent part of an update.

    The sum N contains the radial part that the direction really has,

    \[(1 + A)\,(N - s^2) = 2\,s\,b\,p + b^2\,|d|^2/(1 + A),
      \qquad b = (1 + A)\,c'.\]

    It is used where it differs from the given one by more than rounding.

    Args:
        length: |d|^2.
        norm: s.
        radial: p.
        radius: R.
        fall: A.
        reach: b.
    """
    square, whole = reach * (reach * length), 1 + fall
    growth = (radius - norm - fall * norm) * (radius + whole * norm)
    seen = safe_divide(growth - square, 2 * whole * norm)
    given = reach * radial
    # Of N, which A is half of.
    rounding = 2 * _ROUNDINGS * jnp.finfo(fall.dtype).eps * radius * radius
    off = jnp.abs(seen - given) * jnp.abs(2 * whole * norm)
    along = jnp.where(off > rounding, seen, given)
    still = (square == 0) & _is_rounding(fall)
    change = jnp.where(still, 0, fall * norm + along)
    zero = norm == 0
    return (
        jnp.where(zero, 0, change),
        jnp.where(zero, 0, tangent_square(square, along)),
    )


class _Known(NamedTuple):
    """Scalars of groups before the sum, see `one_sum_step`."""

    rate: jax.Array
    norm: jax.Array
    radial: jax.Array
    radius: jax.Array
    count: jax.Array


# Equal leaves share one trace, and one function of the lowered program.
@jax.jit
def _start(known: _Known) -> tuple[jax.Array, jax.Array]:
    """Return c' and s^2/n."""
    share = jnp.clip(1 - known.rate * known.radial, _LEAST, _MOST)
    factor = known.rate * known.norm / share
    return factor, known.norm * known.norm / known.count


@functools.partial(jax.jit, static_argnums=0)
def _growth(
    part: Plan,
    pairs: list[tuple[jax.Array, jax.Array]],
    factor: jax.Array,
    mean: jax.Array,
) -> jax.Array:
    """Return N - s^2: the sum of u^2 - s^2/n over the n weights of a group.

    The partial sums are smaller than those of u^2, and so is their rounding.

    Args:
        part: the groups of one name.
        pairs: weights and directions of each leaf.
        factor: c'.
        mean: s^2/n.
    """
    (name,) = part.group_shapes
    factors, means = (part.broadcast({name: x}) for x in (factor, mean))
    terms = {}
    for path, (w, d) in zip(part.paths, pairs, strict=True):
        u = _widen(w) + factors[path] * _widen(d)
        terms[path] = u * u - means[path]
    return part.sum(terms)[name]


@jax.jit
def _finish(
    growth: jax.Array, factor: jax.Array, known: _Known
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Return the fields of `OneSum` for the sum N - s^2."""
    length = _length(known.norm, growth)
    fall = _fall(growth, length, factor, known)
    reach = factor * known.radius / length
    return fall, factor, reach, _radial(growth, length, fall, factor, known)


def _widen(x: jax.Array) -> jax.Array:
    """Return `to_accumulator(x)`, of bfloat16 for one use alone."""
    return to_accumulator(apart(x))


def _length(norm: jax.Array, growth: jax.Array) -> jax.Array:
    """Return |u|, and one at N = 0."""
    square = norm * norm + growth
    return jax.lax.sqrt(_select(square > 0, square, 1))


def _fall(
    growth: jax.Array, length: jax.Array, factor: jax.Array, known: _Known
) -> jax.Array:
    """Return A, and zero for a rate of zero; at N = 0 a group stays."""
    total = length * (known.radius + length)
    gap = (known.radius - known.norm) * (known.radius + known.norm) - growth
    is_near = jax.lax.abs(gap) <= ON_SPHERE_TOLERANCE * total
    still = (factor == 0) & is_near
    # A quotient last: XLA for CPU computes all else anew for every weight.
    return replace_value(gap, _select(~still, gap, 0)) / total


def _radial(
    growth: jax.Array,
    length: jax.Array,
    fall: jax.Array,
    factor: jax.Array,
    known: _Known,
) -> jax.Array:
    """Return <v', d>; <v, d> if A is within rounding and says nothing of d."""
    says = (factor != 0) & ~_is_rounding(fall) & (known.radius > 0)
    along = growth / _select(says, factor, 1) - known.norm * known.radial
    return jax.lax.select(says, along / length, known.radial)


def _is_rounding(fall: jax.Array) -> jax.Array:
    """Return whether A may be the rounding of the sum and of R alone."""
    return jax.lax.abs(fall) <= _ROUNDINGS * jnp.finfo(fall.dtype).eps


@jax.jit
def _rounded_move(
    w: jax.Array,
    d: jax.Array,
    norm: jax.Array,
    fall: jax.Array,
    reach: jax.Array,
) -> jax.Array:
    """Return w' - w for w' = w + A w + (1 + A) c' d, rounded; 0 for s = 0."""
    wide, d = to_accumulator(w), to_accumulator(d)
    # In a group of norm zero, d may be non-finite.
    moved = _falls(w, d, fall) * wide + reach * d
    return (wide + jnp.where(norm == 0, 0, moved)).astype(w.dtype) - w


def _falls(w: jax.Array, d: jax.Array, fall: jax.Array) -> jax.Array:
    """Return A of each weight: zero within rounding where d is zero."""
    if w.dtype.itemsize < fall.dtype.itemsize:
        return fall  # Rounding to the dtype of w turns w + A w into w.
    still = _select(~_is_rounding(fall), fall, 0)
    falls = jnp.where(d == 0, still, fall)
    return replace_value(jnp.broadcast_to(fall, w.shape), falls)


def _select(mask: jax.Array, x: jax.Array, y: float) -> jax.Array:
    """Return x, and a number where the mask is false.

    `jnp.where` would be another function in the program for each call.
    """
    return jax.lax.select(mask, x, jnp.full_like(x, y))
