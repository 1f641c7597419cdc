"""Continue a run with another optimizer: its moments and its step count."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from psi_optax import geometry
from psi_optax._text import summarize
from psi_optax.groups import Groups, Plan, Scalars, Tree, make_plan
from psi_optax.groups.paths import map_with_path
from psi_optax.optimizers._carry_checks import (
    check_radii,
    check_state,
    check_steps,
    check_weights,
)
from psi_optax.optimizers._known_groups import (
    KnownGroups,
    momentum_leaves,
    relearn,
)
from psi_optax.optimizers._moments import (
    MOMENTS,
    Held,
    check_moments,
    count_field,
    is_state,
    map_states,
    paths_of,
    read_fields,
    read_moments,
)
from psi_optax.optimizers.psi import PsiState
from psi_optax.optimizers.psi_sgdm import PsiSgdmState
from psi_optax.transforms.moments import (
    ScaleByGroupAdamState,
    ScaleByGroupRmsState,
)
from psi_optax.transforms.momentum import TransportedTraceState

# States that count the steps of a run, and hold more that is not carried.
_BESIDE: dict[type, str] = {
    PsiSgdmState: "; begun anew: its momentum, which contains the learning"
    " rate",
    optax.MultiStepsState: "; begun anew: accumulated gradients",
}

# Adamax and ADOPT have states of this class, with moments of other degrees.
_ASSUMED = {optax.ScaleByAdamState: "; assumed: Adam, not Adamax or ADOPT"}

_REASONS: dict[type, str] = {
    ScaleByGroupAdamState: "its second moment is one scalar per group",
    ScaleByGroupRmsState: "its mean square is one scalar per group",
    TransportedTraceState: "its momentum is transported with the weights",
}


class _OldRun(NamedTuple):
    """Moments of the old run, with the groups that scale them.

    Attributes:
        held: its moments.
        plan: the groups.
        norms: of the groups.
    """

    held: list[Held]
    plan: Plan
    norms: Scalars


def carry_moments(
    old_state: optax.OptState,
    new_state: optax.OptState,
    params: Tree,
    groups: Groups,
    *,
    count: int | None = None,
) -> tuple[optax.OptState, dict[str, str]]:
    r"""Continue with the moments of another optimizer, such as AdamW's.

    Inside `psi` an optimizer sees the gradients \(r\,g\) of groups of norm r:
    a first moment or momentum becomes r times the old one, a second moment
    \(r^2\) times. From `psi` to an optimizer outside of it they are divided.
    Moments of ordinary parameters keep every bit, unless their dtype changes.
    This is exact if norms were constant. If they grew or shrank by a factor of
    c within the window of a second moment, it is off by \(c^2\) at most.

    Adam's, AMSGrad's, Lion's, RMSProp's and Muon's moments, `optax.trace` and
    `optax.ema` are carried between states of one kind, with the count that
    corrects their bias. `ScaleByAdamState` is taken for Adam's, as it is of
    `scale_by_adam`, `scale_by_radam` and `scale_by_yogi`. It also is the state
    of `adamax` and `optax.contrib.adopt`, whose moments are of other degrees in
    the gradients: do not carry these. The notes state the assumption.

    Both states are searched by kind and path, in chains, partitions, masks and
    wrappers. The moments of a state are carried for all of its parameters or
    for none. All else is as in `new_state`, begun anew: radii, a second moment
    per group, the average of `average_weights`, and a momentum that accumulates
    the output of other moments.

    Radii that a `PsiState` stores must be the norms of the groups in params, to
    1 %; in the new state they may all be equal. Groups are not checked where
    none is stored: at other values of `radius` than "init".

    Transforms in front of the moments, such as a clip or an L2 term, are not
    seen: inside `psi` they act on other gradients, which the moments reflect
    after their window. The learning rate must be converted.

    Args:
        old_state: of the run so far, such as that of `optax.adamw`.
        new_state: `tx.init(params)` of the optimizer that continues.
        params: the weights that the moments belong to, before any `normalize`.
        groups: the scale groups of the optimizer with `psi`, in any form; for
            the balls of `adamh` or `muonh`, `joint_groups(groups)`.
        count: of steps, a whole number, from which schedules go on; 0 restarts
            them. None for that of the old state.

    Returns:
        The new state with what was carried, and a dictionary from the place and
        kind of each state in it to "carried: ..." or "begun anew: ...": which
        fields, for how many of its parameters they were rescaled by norms, or
        the reason.

    Raises:
        TypeError: a transform, an optimizer of NNX or its `nnx.State` in place
            of a state; a count that is not a number; traced values, or shapes
            without values: call outside of `jax.jit` and `jax.vmap`.
        ValueError: groups do not fit params, or are not those of `psi`; a state
            of other params, or of an ensemble; a negative or fractional count.

    Examples:
        >>> from psi_optax import ScaleGroup, psi
        >>> w, groups = jnp.array([3.0, 4.0]), ScaleGroup(axes=0)
        >>> old, new = optax.adamw(0.1), psi(optax.adam(0.1), groups)
        >>> _, state = old.update(jnp.array([-8.0, 6.0]), old.init(w), w)
        >>> state, notes = carry_moments(state, new.init(w), w, groups)
        >>> print(optax.tree.get(state, "mu").round())  # 5 * 0.1 * gradient
        [-4.  3.]
        >>> for where, note in notes.items():
        ...     print(f"{where}: {note}")
        inner[0] ScaleByAdamState: carried: mu, nu, count=1 (rescaled: 1 of 1);
        assumed: Adam, not Adamax or ADOPT
        PsiState: carried: count=1

    References:
        Kingma and Ba, [Adam](https://arxiv.org/abs/1412.6980), 2014, section 2,
        on the effect of the scale of gradients.
    """
    states = {"old_state": old_state, "new_state": new_state}
    for name, state in states.items():
        check_state(name, state)
    check_steps(count)
    plan = make_plan(groups, params)
    check_weights(params, plan)
    norms = geometry.norm(plan, plan.select(params))
    for name, state in states.items():
        check_moments(name, state, plan, params)
        check_radii(name, state, plan, norms, equal=state is new_state)
    held, counts = read_moments(old_state, plan)
    old = _OldRun(held, plan, norms)
    steps, why = _steps(counts, count)
    notes: dict[str, str] = {}
    seen: set[str] = set()

    def carry(where: str, node: Any, scaled: frozenset[str]) -> Any:
        if _is_empty(node) or isinstance(node, KnownGroups):
            return node
        if isinstance(node, PsiState):
            node = _with_known_momentum(node, plan, params)
        if type(node) in MOMENTS:
            node, note = _carry_state(node, old, seen, scaled)
        elif field := count_field(node):
            node, note = _carry_count(node, field, steps, why)
        else:
            note = _REASONS.get(type(node), "it is of a kind without a rule")
            note = f"begun anew: {note}"
        notes[f"{where} {type(node).__name__}".strip(". ")] = note
        return node

    return map_states(carry, new_state, plan), notes


def _with_known_momentum(node: PsiState, plan: Plan, params: Tree) -> PsiState:
    """Return the state of `psi_sgd` with the radial part of its momentum."""
    if not isinstance(node.known, KnownGroups):
        return node
    if not isinstance(node.known.radial, dict):
        return node
    found = momentum_leaves(plan, node.inner)
    m = {path: jnp.asarray(x) for path, x in (found or {}).items()}
    known = relearn(node.known, plan, plan.select(params), m)
    return node._replace(known=known)


def _is_empty(node: Any) -> bool:
    """Return whether a state has no moments, or holds only other states."""
    if type(node) in MOMENTS:
        return not paths_of(read_fields(node))
    leaves = jax.tree.leaves(tuple(node), is_leaf=is_state)
    return all(map(is_state, leaves))


def _steps(counts: set[int], count: int | None) -> tuple[int | None, str]:
    """Return the number of steps of the old run, or None and a reason."""
    if count is not None:
        return count, ""
    if len(counts) == 1:
        return min(counts), ""
    have = f"the counts {sorted(counts)}" if counts else "no count"
    return None, f"the old state has {have}: pass count=, the steps so far"


def _carry_count(
    node: Any, field: str, steps: int | None, why: str
) -> tuple[Any, str]:
    """Return a state that goes on from the steps so far, with a note."""
    beside = _BESIDE.get(type(node), "")
    if steps is None:
        return node, f"begun anew: {why}{beside}"
    node = _with_count(node, field, steps)
    return node, f"carried: {field}={steps}{beside}"


def _with_count(node: Any, field: str, count: int) -> Any:
    filled = jax.tree.map(
        lambda x: _place(jnp.asarray(count, x.dtype), x), getattr(node, field)
    )
    return node._replace(**{field: filled})


def _carry_state(
    node: Any, old: _OldRun, seen: set[str], scaled: frozenset[str]
) -> tuple[Any, str]:
    """Return a state with moments of the old run, with a note.

    Args:
        node: a state with moments.
        old: the old run.
        seen: paths with moments in front of this state; its own are added.
        scaled: paths whose gradients `psi` multiplies by their norm here.
    """
    paths = paths_of(read_fields(node))
    follows = not seen.isdisjoint(paths)
    seen.update(paths)
    if follows:
        return node, "begun anew: it accumulates the output of other moments"
    sources, why = _sources(type(node), paths, old.held)
    if why:
        return node, f"begun anew: {why}"
    powers = {k: (k in scaled) - (k in sources[k].scaled) for k in paths}
    degrees = MOMENTS[type(node)]
    carried = {k: _convert(node, k, sources, powers, old) for k in degrees}
    node, names = node._replace(**carried), ", ".join(degrees)
    count = sources[paths[0]].count
    if count is not None:
        node = _with_count(node, "count", count)
        names += f", count={count}"
    changed = sum(map(bool, powers.values()))
    rescaled = f"(rescaled: {changed} of {len(paths)})"
    return node, f"carried: {names} {rescaled}{_ASSUMED.get(type(node), '')}"


def _sources(
    kind: type, paths: list[str], held: list[Held]
) -> tuple[dict[str, Held], str]:
    """Return the old moments of each path, and why a path has none."""
    found = {
        path: x for x in held if x.kind is kind for path in paths_of(x.fields)
    }
    if missing := [repr(path) for path in paths if path not in found]:
        why = f"the old state has no {kind.__name__} for {summarize(missing)}"
        return {}, why
    sources = {path: found[path] for path in paths}
    counts = sorted({x.count for x in sources.values() if x.count is not None})
    if len(counts) > 1:
        return {}, f"the old moments have the counts {counts}"
    return sources, ""


def _convert(
    node: Any,
    field: str,
    sources: dict[str, Held],
    powers: dict[str, int],
    old: _OldRun,
) -> Any:
    """Return a field of old moments, times powers of the norms of groups."""
    degree = MOMENTS[type(node)][field]

    def convert(path: str, like: Any) -> jax.Array:
        x = _place(jnp.asarray(sources[path].fields[field][path]), like)
        x = _times_norm(x, path, powers[path] * degree, old)
        return x.astype(like.dtype)

    return map_with_path(convert, getattr(node, field))


def _times_norm(x: jax.Array, path: str, power: int, old: _OldRun) -> jax.Array:
    """Return moments times a power of the norms; zero for a norm of zero."""
    leaves = tuple(leaf for leaf in old.plan.leaves if leaf.path == path)
    for leaf in leaves if power else ():
        norm = old.norms[leaf.name]
        inverse = geometry.safe_divide(jnp.ones_like(norm), norm)
        factor = {leaf.name: norm if power > 0 else inverse}
        for _ in range(abs(power)):
            x = geometry.scale(Plan((leaf,)), {path: x}, factor)[path]
    return x


def _place(x: jax.Array, like: Any) -> jax.Array:
    """Move an array to the devices of another, if that is on several."""
    sharding = getattr(like, "sharding", None)
    if sharding is not None and len(sharding.device_set) > 1:
        return jax.device_put(x, sharding)
    return x
