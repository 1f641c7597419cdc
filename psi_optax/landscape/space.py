r"""Steps whose units do not depend on the scale of groups, and geodesics.

With \(r = |w|\) for a group and the projection P to its tangent space, a step u
leads to

\[\mathrm{at}(u) = r\,\frac{w + r\,P(c\,u)}{|w + r\,P(c\,u)|},\]

and to \(w + c\,u\) for an ordinary parameter. The units c are 1 by default. So
u is in radians (it is the tangent of an angle) for groups. At u = 0 the
gradient of the loss of at(u) is \(r\,g\), and its Hessian is the Riemannian
Hessian on the product of unit spheres.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psi_optax import geometry
from psi_optax.groups import Groups, Leaves, Plan, Scalars, Tree, make_plan
from psi_optax.groups.frameworks import weights_of
from psi_optax.groups.paths import leaves_with_paths, map_with_path
from psi_optax.groups.reductions import accumulation_dtype, to_accumulator
from psi_optax.landscape._leaves import (
    check_real,
    combine_leaves,
    floating_sizes,
    map_floating,
    scale_by_units,
)


class TangentSpace(NamedTuple):
    """Steps from params, in units that do not depend on the scale of groups.

    A step is a tree like params, in float32 (float64 for float64 leaves), with
    None at leaves that are not floating.

    Attributes:
        at: returns the params where a step leads, in the dtypes of steps. A
            step of zeros leads to params.
        project: returns a step without its radial parts, which have no effect;
            with units, the step unchanged.
        random: random(key, *, filter_normalized=False) returns a projected step
            of standard normal entries. Filter-normalized, each group is a unit
            vector, an ordinary leaf of rank two or more has the norm of its
            parameter, and other leaves are zero.
        size: the dimension of the space of projected steps. Groups of norm zero
            and of one element have none. While params are traced, norms are
            unknown, and no group counts as zero.
    """

    at: Callable[[Tree], Tree]
    project: Callable[[Tree], Tree]
    random: Callable[..., Tree]
    size: int


def tangent_space(
    params: Tree, groups: Groups = None, units: Tree | None = None
) -> TangentSpace:
    r"""Return the space of steps from params, in scale-invariant units.

    A step leads to at(u), with \(r = |w|\) and the tangent projection P of each
    group:

    \[\mathrm{at}(u) = r\,\frac{w + r\,P(c\,u)}{|w + r\,P(c\,u)|}.\]

    A step of length u rotates a group by arctan(u). An ordinary parameter
    becomes \(w + c\,u\).

    Args:
        params: arrays; or a model, as for `find_groups`.
        groups: scale groups in any form.
        units: c, a tree like params of positive arrays that broadcast to the
            parameters, None for 1; None for 1 everywhere.

    Returns:
        The space. With units nothing is projected, and its size is the number
        of floating parameters.

    Raises:
        TypeError: a parameter is complex.
        ValueError: groups or units do not fit params.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> space = tangent_space(jnp.array([3.0, 4.0]), ScaleGroup(0))
        >>> space.size
        1
        >>> [f"{x:.2f}" for x in space.at(jnp.array([-0.8, 0.6]))]
        ['-0.71', '4.95']
    """
    params = weights_of(params)
    plan = make_plan(groups, params)
    return space_of_plan(plan, params, read_units(units, params))


def space_of_plan(plan: Plan, params: Tree, units: Tree | None) -> TangentSpace:
    """Return the space of steps from weights, for a plan and units.

    Raises:
        TypeError: a parameter is complex.
    """
    check_real(params)
    w = plan.select(params)
    norms = geometry.norm(plan, w)

    def project(u: Tree) -> Tree:
        return u if units is not None else _tangent(plan, w, norms, u)

    def at(u: Tree) -> Tree:
        return _follow(plan, params, w, norms, scale_by_units(units, u))

    def random(key: jax.Array, *, filter_normalized: bool = False) -> Tree:
        u = project(_normal(key, params))
        if not filter_normalized:
            return u
        if units is not None:
            raise ValueError(
                "filter_normalized=True and units exclude each other: omit"
                " units."
            )
        return _normalize_filters(plan, params, u)

    size = sum(floating_sizes(params).values())
    if units is None:
        size -= _count_lost(plan, norms)
    return TangentSpace(at, project, random, size)


def zero_step(params: Tree) -> Tree:
    """Return the step that leads to params."""
    return map_floating(
        lambda _, x: jnp.zeros_like(x, accumulation_dtype(jnp.result_type(x))),
        params,
    )


def read_units(units: Tree | None, params: Tree) -> Tree | None:
    """Return units as a tree like steps; None for none.

    Raises:
        ValueError: units are missing, or do not broadcast to their parameter.
    """
    if units is None:
        return None
    given = {x.path: x for x in leaves_with_paths(units)}

    def read(path: str, x: Any) -> jax.Array:
        dtype = accumulation_dtype(jnp.result_type(x))
        if path not in given:
            raise ValueError(
                f"units have nothing at {path!r} of shape {jnp.shape(x)}: pass"
                " a tree like params, None for 1."
            )
        if given[path].is_placeholder:
            return jnp.ones([], dtype)
        unit = jnp.asarray(given[path].leaf, dtype)
        if not _broadcasts(unit.shape, jnp.shape(x)):
            raise ValueError(
                f"units have shape {unit.shape} at {path!r}: pass an array that"
                f" broadcasts to the parameter's shape {jnp.shape(x)}."
            )
        return unit

    return map_floating(read, params)


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Return whether an array of a shape broadcasts to another shape."""
    missing = len(target) - len(shape)
    return missing >= 0 and all(
        n in (1, m) for n, m in zip(shape, target[missing:], strict=True)
    )


def _tangent(plan: Plan, w: Leaves, norms: Scalars, u: Tree) -> Tree:
    """Return a step without radial parts; zero for groups of norm zero."""
    steps = plan.select_steps(u, "steps")
    tangent = geometry.project_to_tangent(plan, w, steps)
    moves = {name: (r != 0).astype(r.dtype) for name, r in norms.items()}
    return plan.merge(u, geometry.scale(plan, tangent, moves))


def _follow(
    plan: Plan, params: Tree, w: Leaves, norms: Scalars, u: Tree
) -> Tree:
    """Return the params where a step leads.

    `geometry.retract` does not serve: the derivative of its rule for a zero
    step is zero.
    """
    steps = plan.select_steps(u, "steps")
    tangent = geometry.project_to_tangent(plan, w, steps)
    moved = jax.tree.map(
        lambda x, t, r: to_accumulator(x) + r * t,
        w,
        tangent,
        plan.broadcast(norms),
    )
    on_sphere = geometry.project_to_sphere(plan, moved, norms)
    ordinary = combine_leaves(
        lambda x, d: to_accumulator(x) + to_accumulator(d), params, u
    )
    return plan.merge(ordinary, on_sphere)


def _normal(key: jax.Array, params: Tree) -> Tree:
    """Return a step of standard normal entries."""
    paths = list(floating_sizes(params))
    keys = dict(zip(paths, jax.random.split(key, len(paths)), strict=True))
    return map_floating(
        lambda path, x: jax.random.normal(
            keys[path], jnp.shape(x), accumulation_dtype(jnp.result_type(x))
        ),
        params,
    )


def _normalize_filters(plan: Plan, params: Tree, u: Tree) -> Tree:
    """Return a tangent step with unit groups and leaves of their norms."""
    steps = plan.select(u, "steps")
    unit = geometry.direction(plan, steps, geometry.norm(plan, steps))

    def leaf(x: jax.Array, d: jax.Array) -> jax.Array:
        if jnp.ndim(x) < 2:
            return jnp.zeros_like(d)
        length = jnp.linalg.norm(to_accumulator(x).ravel())
        return d * geometry.safe_divide(length, jnp.linalg.norm(d.ravel()))

    weights = {x.path: x.leaf for x in leaves_with_paths(params)}
    scaled = map_with_path(lambda path, d: leaf(weights[path], d), u)
    return plan.merge(scaled, unit)


def _count_lost(plan: Plan, norms: Scalars) -> int:
    """Return the number of dimensions in which steps have no effect."""
    lost = 0
    for name, r in norms.items():
        lost += math.prod(plan.group_shapes[name])
        if not isinstance(r, jax.core.Tracer):
            lost += int((r == 0).sum()) * (plan.sizes[name] - 1)
    return lost


def geodesic(
    start: Tree, end: Tree, groups: Groups = None
) -> Callable[[ArrayLike], Tree]:
    r"""Return the path between two sets of params along great circles.

    The direction of each group follows the great circle and its norm the
    geometric mean \(r_0^{1-t} r_1^t\). Ordinary parameters follow the line. So
    the loss along the path does not depend on the norms at either end.

    Args:
        start: params at 0: arrays, or a model, as for `find_groups`.
        end: params at 1, of the same structure.
        groups: scale groups in any form.

    Returns:
        A function of t, a number, to params in float32 (float64 for float64
        leaves). Leaves that are not floating are those of start. Groups that do
        not differ are those of start exactly; there the derivative by an end is
        zero across its direction. Groups of opposite directions, of norm zero
        at one end only, or non-finite, are NaN.

    Raises:
        TypeError: a parameter is complex.
        ValueError: groups do not fit start, or end is not like start; the path
            is called with an array.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> ends = jnp.array([1.0, 0.0]), jnp.array([0.0, 4.0])
        >>> [f"{x:.2f}" for x in geodesic(*ends, ScaleGroup(0))(0.5)]
        ['1.41', '1.41']

    References:
        Garipov et al., [Loss surfaces, mode connectivity, and fast ensembling
        of DNNs](https://arxiv.org/abs/1802.10026), NeurIPS 2018, on paths
        between solutions.
    """
    start, end = weights_of(start), weights_of(end)
    check_real(start)
    plan = make_plan(groups, start)
    first, last = plan.select(start), plan.select(end, "end")

    def at(t: ArrayLike) -> Tree:
        if jnp.ndim(t):
            raise ValueError(
                f"t has shape {jnp.shape(t)}: pass a number, or use jax.vmap."
            )
        line = combine_leaves(lambda x, y: _lerp(x, y, t), start, end)
        return plan.merge(line, _great_circle(plan, first, last, t))

    return at


def _lerp(x: jax.Array, y: jax.Array, t: ArrayLike) -> jax.Array:
    x, y = to_accumulator(x), to_accumulator(y)
    return x + jnp.asarray(t).astype(x.dtype) * (y - x)


def _great_circle(
    plan: Plan, first: Leaves, last: Leaves, t: ArrayLike
) -> Leaves:
    """Return the groups at a fraction of the way from first to last."""
    angle = geometry.angle(plan, first, last)
    across = geometry.project_to_tangent(plan, first, last)
    sides = geometry.norm(plan, across)
    factors = {
        name: _circle_factors(angle[name], r, s, sides[name], t)
        for (name, r), s in zip(
            geometry.norm(plan, first).items(),
            geometry.norm(plan, last).values(),
            strict=True,
        )
    }
    along = plan.broadcast({name: f[0] for name, f in factors.items()})
    aside = plan.broadcast({name: f[1] for name, f in factors.items()})
    return jax.tree.map(
        lambda x, y, a, b: a * to_accumulator(x) + b * y,
        first,
        across,
        along,
        aside,
    )


def _circle_factors(
    angle: jax.Array,
    start: jax.Array,
    end: jax.Array,
    across: jax.Array,
    t: ArrayLike,
) -> tuple[jax.Array, jax.Array]:
    """Return the factors of the start and of the tangent part of the end."""
    t = jnp.asarray(t).astype(angle.dtype)
    # Of opposite directions the tangent part is rounding error.
    opposite = jnp.pi - angle < 64 * jnp.finfo(angle.dtype).eps
    angle = jnp.where(opposite, jnp.nan, angle)
    both_zero = (start == 0) & (end == 0)
    growth = jnp.where(both_zero, 1, geometry.safe_divide(end, start)) ** t
    radius = growth * start
    return (
        growth * jnp.cos(t * angle),
        geometry.safe_divide(radius * jnp.sin(t * angle), across),
    )
