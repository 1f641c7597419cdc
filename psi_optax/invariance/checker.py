"""Check stated scale groups, by measurement."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from psi_optax.groups import Plan, ScaleGroup, make_plan
from psi_optax.groups.types import Tree
from psi_optax.invariance.finding import Finding, tied_with
from psi_optax.invariance.penalties import find_penalties, penalty_advice
from psi_optax.invariance.probe.points import NOTICEABLE
from psi_optax.invariance.probe.probe import Probe
from psi_optax.invariance.report import GroupReport, make_report
from psi_optax.invariance.tracing import (
    TracedLoss,
    double_precision,
    trace_loss,
)


def check_groups(
    loss_fn: Callable[..., Any],
    params: Tree,
    groups: Any,
    *args: Any,
    has_aux: bool = False,
    axis_name: str | Sequence[str] | None = None,
    seed: int = 0,
) -> GroupReport:
    """Measure that stated groups are scale-invariant.

    They are multiplied by numbers between 2^-10 and 2^10, jointly and
    independently. The effect of an epsilon is tolerated where it is small at
    half of the given weights and fades in smoothly below. That of a bound on
    norms is not. The same holds for other values of data whose elements are all
    equal, such as flags and counters.

    Args:
        loss_fn: as for `find_groups`.
        params: as for `find_groups`, arrays.
        groups: scale groups in any form.
        args: as for `find_groups`, arrays.
        has_aux: as for `find_groups`.
        axis_name: as for `find_groups`.
        seed: seed of the random factors.

    Returns:
        A report in which each finding has its deviation: the largest relative
        change of the loss at these weights.

    Raises:
        TypeError, NameError: as for `find_groups`.
        ValueError: groups do not fit params, or the loss changes by more than
            1 % of itself, or suddenly, or at large weights by more than
            rounding: the message names each parameter with its shape and its
            deviation.

    Examples:
        >>> import jax.numpy as jnp
        >>> from psi_optax import ScaleGroup
        >>> def loss(params, x):
        ...     w = params["w"] / jnp.linalg.norm(params["w"], axis=0)
        ...     return jnp.sum(jnp.tanh(x @ w) @ params["v"])
        >>> params = {"w": jnp.ones((3, 2)), "v": jnp.ones(2)}
        >>> x = jnp.ones((4, 3))
        >>> groups = {"w": ScaleGroup(0), "v": None}
        >>> report = check_groups(loss, params, groups, x)
        >>> report["w"].deviation < 1e-6
        True
    """
    loss = trace_loss(loss_fn, params, args, has_aux, axis_name)
    plan = make_plan(groups, loss.params)
    if loss.has_shapes:
        raise ValueError(
            "check_groups needs arrays, but params or args hold shapes:"
            " pass arrays."
        )
    stated = {leaf.path: leaf.group for leaf in plan.leaves}
    with double_precision():
        probe = Probe(loss, seed)
        given = {p: probe.deviations(tied_with(p, stated)) for p in stated}
        _check_stated(probe, plan, given, _hint(loss, stated))
        untried = probe.points.untried
    findings = {
        entry.path: Finding(
            entry.path,
            tuple(jnp.shape(entry.leaf)),
            stated.get(entry.path),
            "stated",
            reason="" if entry.path in stated else "ordinary, unchecked",
            deviation=max(given[entry.path]) if entry.path in given else None,
        )
        for entry in loss.parameters
    }
    advice = untried and f"Only the given arguments are checked: {untried}"
    return make_report(loss.params, findings, advice=advice)


def _hint(loss: TracedLoss, stated: dict[str, ScaleGroup]) -> str:
    """Return the likely cause and remedy if scale matters; "" if unknown."""
    if loss.returned > 1:
        return (
            f"All {loss.returned} arrays that loss_fn returns count: return the"
            " loss alone, or pass has_aux=True if it returns (loss, aux)."
        )
    text = penalty_advice(find_penalties(loss), stated, "check_groups")
    return text and f"{text}."


_REMEDIES = {
    frozenset({"epsilon"}): (
        "At large weights it does not: is a normalization epsilon not small"
        " beside them? normalize them first."
    ),
    frozenset({"state"}): (
        "It does with other flags, counters or constant data: give them None."
    ),
    frozenset({"bound"}): (
        "Is there a bound on their norm, or a threshold? Give them None."
    ),
}


def _check_stated(
    probe: Probe, plan: Plan, given: dict[str, list[float]], hint: str
) -> None:
    """Check that the loss does not change with the scale of stated groups.

    Args:
        probe: the measurements.
        plan: the groups.
        given: their deviations at the given weights, in each state of data.
        hint: the remedy if scale matters; "" if unknown.

    Raises:
        ValueError: it does.
    """
    stated = {leaf.path: leaf.group for leaf in plan.leaves}
    wrong, causes = [], set()
    for leaf in plan.leaves:
        tied = tied_with(leaf.path, stated)
        large = probe.deviation_in_all_states(tied)
        change = max(*given[leaf.path], large)
        text = f"{leaf} (relative change {change:.1e})"
        if large > probe.tolerance:
            causes.add("scale")
        elif given[leaf.path][0] > NOTICEABLE:
            causes.add("epsilon")
        elif max(given[leaf.path]) > NOTICEABLE:
            causes.add("state")
        elif not probe.is_smooth(tied):
            text = f"{leaf} (suddenly)"
            causes.add("bound")
        else:
            continue
        wrong.append(text)
    if not wrong:
        return
    remedy = _REMEDIES.get(
        frozenset(causes), "Give them None, or ask find_groups for groups."
    )
    if hint and "scale" in causes:
        remedy = hint
    raise ValueError(
        f"the loss changes with the scale of {'; '.join(wrong)}. {remedy}"
    )
