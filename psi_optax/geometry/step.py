r"""One step of a scale group on its sphere, in closed form.

Let s = |w|, v = w/s, d a direction (a step of v; only its tangent part counts),
c the rate and R the radius of the sphere. With

\[p = c\,\langle v, d\rangle, \qquad t = c\,d - p\,v, \qquad q = |t|^2
    = c^2(|d|^2 - \langle v, d\rangle^2),\]

a retraction of t at v is \(f(q)\,v + h(q)\,t\), and R times it is

\[w' = w + \alpha\,w + \beta\,d, \qquad
  s\,\alpha = (R - s) + R\,(f - 1 - p\,h), \quad \beta = c\,R\,h.\]

If the radial part of the step is kept, the retraction is of p v + t, and f and
h depend on p as well.

The two scalars per group follow from \(|w|^2\), \(\langle w,d\rangle\) and
\(|d|^2\): w and d are read twice, and nothing of their size is stored. The
small terms R - s and f - 1 are computed without cancellation, so the norm of w'
is off R by rounding alone, whatever the steps before. Every formula is
homogeneous: multiplying w and R by a power of two multiplies w' by it, to the
last bit.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from psi_optax.geometry._scheduling import once_per_group
from psi_optax.geometry.numerics import replace_value, safe_divide, safe_sqrt
from psi_optax.geometry.rounding import (
    ON_SPHERE_TOLERANCE,
    ROUNDING_GAIN,
    SUM_ROUNDINGS,
    reachable,
    rounded_update,
    rounding_shrinkage_limit,
)
from psi_optax.geometry.sums import StepSums, split_direction, step_sums
from psi_optax.geometry.update_parts import UpdateParts, remember_parts
from psi_optax.groups.plan import Plan
from psi_optax.groups.reductions import to_accumulator
from psi_optax.groups.types import Leaves, Scalars

# From q and p to (f - 1, h).
_Curve = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def _projection(q: jax.Array, _: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return (v + t) / |v + t|: a rotation by arctan|t|."""
    reach = 1 / jnp.sqrt(1 + q)
    return -q * reach * reach / (1 + reach), reach


def exponential(q: jax.Array, _: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Follow the geodesic along t: a rotation by |t|."""
    # Both are smooth in q at zero, but the root of q is not: there the
    # derivatives are those of the series.
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
    """Sum a power series, highest power first.

    `jnp.polyval` is a scan, and its carry would have to be sharded like q.
    """
    return functools.reduce(lambda y, c: y * q + c, coefficients, 0.0 * q)


def _rotation(q: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return cos(√q) - 1, without cancellation, and sin(√q) / √q."""
    angle = safe_sqrt(q)
    sinc = jnp.where(q == 0, 1, safe_divide(jnp.sin(angle), angle))
    return -2 * jnp.sin(angle / 2) ** 2, sinc


# Both as power series. Up to a q of 1/4 the next terms are below 1e-19.
_NEAR = 0.25
_FALL = [(-1) ** k / math.factorial(2 * k) for k in range(8, 0, -1)] + [0.0]
_SINC = [(-1) ** k / math.factorial(2 * k + 1) for k in range(8, -1, -1)]


def _additive(q: jax.Array, _: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return v + t, which leaves the sphere (PSI paper, eq. 8)."""
    return jnp.zeros_like(q), jnp.ones_like(q)


def _whole_projection(
    q: jax.Array, p: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return (v + p v + t) / |v + p v + t|: rotates by arctan(|t|/(1 + p))."""
    length = safe_sqrt((1 + p) ** 2 + q)
    ahead = 1 + p > 0  # There 1 + p - length cancels.
    fall = jnp.where(
        ahead,
        -safe_divide(q, length * jnp.where(ahead, 1 + p + length, 1)),
        safe_divide(1 + p, length) - 1,
    )
    return fall, safe_divide(jnp.ones_like(q), length)


def _whole_additive(q: jax.Array, p: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return v + p v + t."""
    return p, jnp.ones_like(q)


_CURVES: dict[tuple[str | None, bool], _Curve] = {
    ("projection", True): _projection,
    ("exponential", True): exponential,
    (None, True): _additive,
    ("projection", False): _whole_projection,
    (None, False): _whole_additive,
}
RETRACTIONS = ("projection", "exponential", None)


def step(
    plan: Plan,
    w: Leaves,
    d: Leaves,
    rate: Scalars,
    radius: Scalars | None,
    *,
    retraction: str | None = "projection",
    tangent: bool = True,
    sums: StepSums | None = None,
) -> Leaves:
    """Move every group along d on its sphere; return what to add to w.

    Two rules supplement the formula. A group of norm zero stays. A group whose
    step is exactly zero keeps every bit (but -0.0 becomes 0.0), unless it is
    off its sphere by more than `ON_SPHERE_TOLERANCE`: then it is moved onto it.
    The latter rule changes values only: derivatives are those of the formula.

    A sphere far smaller than the norm is approached over several steps, in the
    direction of the formula, see `reachable`.

    A group with a non-finite element of d becomes non-finite, as does a group
    whose squared step overflows; no other group is affected. The angle is a
    difference: a radial part of p radii, far beyond that of momentum or decay,
    costs the new norm a relative error of up to 4 p²/(1 + q) times the
    precision, until the next steps.

    Args:
        plan: the groups.
        w: the weights.
        d: directions, in units of the radius (degree 0), of any length.
        rate: the factor of each group's d; minus the learning rate for a
            direction of ascent. The product of the rate and the norm of d has
            to be representable, the square of the rate has not.
        radius: of each group's sphere; None for the current norm, from which
            `retraction=None` starts.
        retraction: "projection", "exponential" or None.
        tangent: whether to use the tangent part of d alone, as "exponential"
            always does.
        sums: of w and d, if they are known.

    Returns:
        The rounded new weights minus the old, in the dtype of w.
    """
    if not plan.leaves:
        return {}
    sums = step_sums(plan, w, d) if sums is None else sums
    curve = _CURVES[retraction, tangent]
    each = functools.partial(_of_each, plan, w, d, sums, rate, radius, curve)
    alpha, beta = each(_coefficients)
    if retraction == "exponential":
        alpha = once_per_group(alpha, sums.square)
        beta = once_per_group(beta, sums.square)
    moved = jax.tree.map(
        _combine,
        w,
        d,
        plan.broadcast(sums.square),
        plan.broadcast(alpha),
        plan.broadcast(beta),
    )
    u = rounded_update(w, moved)
    remember_parts(plan, w, u, lambda u: (u, UpdateParts(*each(_parts))))
    return u


def _of_each(
    plan: Plan,
    w: Leaves,
    d: Leaves,
    sums: StepSums,
    rate: Scalars,
    radius: Scalars | None,
    curve: _Curve,
    function: Callable[..., tuple[jax.Array, ...]],
) -> list[Scalars]:
    """Return what a function maps the scalars of each name to; see `step`."""
    found: dict[str, tuple[jax.Array, ...]] = {}
    for name, part in plan.parts().items():
        dtypes = [x[path].dtype for path in part.paths for x in (w, d)]
        found[name] = function(
            sums.square[name],
            sums.inner[name],
            sums.length[name],
            rate[name],
            None if radius is None else radius[name],
            curve,
            rounding_shrinkage_limit(dtypes),
        )
    fields = zip(*found.values(), strict=True)
    return [dict(zip(found, field, strict=True)) for field in fields]


class _Arc(NamedTuple):
    """The step of a group in the plane of its direction and its step.

    Attributes:
        s: the norm, 1 for zero.
        radius: R, as far as it is reachable.
        gap: R - s, or a part of it.
        q: the square of t.
        p: the radial part of the step.
        fall: f - 1.
        reach: h.
    """

    s: jax.Array
    radius: jax.Array
    gap: jax.Array
    q: jax.Array
    p: jax.Array
    fall: jax.Array
    reach: jax.Array


def _arc(
    square: jax.Array,
    inner: jax.Array,
    length: jax.Array,
    rate: jax.Array,
    radius: jax.Array | None,
    curve: _Curve,
    ratio: float,
) -> _Arc:
    s, v_d, t_t = split_direction(square, inner, length)
    q, p = rate * (rate * t_t), rate * v_d
    fall, reach = curve(q, p)
    if radius is None:
        return _Arc(s, s, jnp.zeros_like(s), q, p, fall, reach)
    # With a zero step all else is zero, but the rounding of R is not.
    still = rate * (rate * length) == 0
    gap = _gap(square, s, radius, still)
    reached = reachable(radius, s, ratio)
    gap = jnp.where(reached == radius, gap, reached - s)
    return _Arc(s, reached, gap, q, p, fall, reach)


@functools.partial(jax.jit, static_argnums=(5, 6))
def _coefficients(
    square: jax.Array,
    inner: jax.Array,
    length: jax.Array,
    rate: jax.typing.ArrayLike,
    radius: jax.Array | None,
    curve: _Curve,
    ratio: float,
) -> tuple[jax.Array, jax.Array]:
    """Return the coefficients of w and d in the change of w.

    Of a group of norm zero they are finite and have no meaning.
    """
    rate = jnp.asarray(rate, square.dtype)
    x = _arc(square, inner, length, rate, radius, curve, ratio)
    alpha = (x.gap + x.radius * (x.fall - x.p * x.reach)) / x.s
    return alpha, rate * x.radius * x.reach


@functools.partial(jax.jit, static_argnums=(5, 6))
def _parts(
    square: jax.Array,
    inner: jax.Array,
    length: jax.Array,
    rate: jax.typing.ArrayLike,
    radius: jax.Array | None,
    curve: _Curve,
    ratio: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the fields of `UpdateParts` for the change of w."""
    rate = jnp.asarray(rate, square.dtype)
    x = _arc(square, inner, length, rate, radius, curve, ratio)
    away = x.radius * x.reach
    radial, tangent = x.gap + x.radius * x.fall, away * (away * x.q)
    zero = square == 0
    return (
        safe_sqrt(square),
        jnp.where(zero, 0, radial),
        jnp.where(zero, 0, tangent),
    )


def _gap(
    square: jax.Array, s: jax.Array, radius: jax.Array, still: jax.Array
) -> jax.Array:
    """Return R - s, or a part of it if it may be rounding alone.

    A sum of squares is off by a few roundings, different at every step. A full
    correction would pass them into the weights. A partial one corrects the mean
    of the last few steps, which keeps the rounding of the weights from adding
    up.
    """
    # This is (R - s) (R + s), without the rounding of the root.
    whole, total = radius * radius - square, radius + s
    off = jnp.abs(whole)
    rounding = SUM_ROUNDINGS * jnp.finfo(s.dtype).eps
    gap = jnp.where(off <= rounding * s * total, ROUNDING_GAIN * whole, whole)
    gap = jnp.where(still & (off <= ON_SPHERE_TOLERANCE * s * total), 0, gap)
    return replace_value(whole, gap) / total


@jax.jit
def _combine(
    w: jax.Array,
    d: jax.Array,
    square: jax.Array,
    alpha: jax.Array,
    beta: jax.Array,
) -> jax.Array:
    # In a group of norm zero, d may be non-finite.
    change = alpha * to_accumulator(w) + beta * to_accumulator(d)
    return to_accumulator(w) + jnp.where(square == 0, 0, change)
