"""Check a claim about scale groups, by measurement."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from psi_optax.groups import Plan, ScaleGroup, make_plan
from psi_optax.groups.paths import Tree, entries
from psi_optax.invariance.cross_check import tied_with
from psi_optax.invariance.penalties import Penalty, advice, find_penalties
from psi_optax.invariance.probe.probe import NOTICEABLE, Probe
from psi_optax.invariance.report import (
    Finding,
    GroupReport,
    make_report,
    with_notes,
)
from psi_optax.invariance.tracing import (
    any_shapes,
    double_precision,
    trace,
    with_static,
)


def check_groups(
    loss_fn: Callable[..., Any],
    params: Tree,
    groups: Any,
    *args: Any,
    seed: int = 0,
) -> GroupReport:
    """Measure whether groups that you state are scale-invariant.

    They are multiplied by numbers between 2^-10 and 2^10, jointly and each by
    its own. The effect of an epsilon is tolerated where it is small at half of
    the given weights and fades in smoothly below; that of a bound on norms
    is not.

    Args:
        loss_fn: as for `find_groups`.
        params: arrays.
        groups: scale groups in any form.
        args: as for `find_groups`, arrays.
        seed: of the random factors.

    Returns:
        A report in which each finding has its deviation: by how much, relative
        to its size, the loss changes at these weights.

    Raises:
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
    plan = make_plan(groups, params)
    loss, traced = with_static(loss_fn, args)
    if any_shapes((params, traced)):
        raise ValueError(
            "check_groups measures, and needs arrays: params or args hold"
            " shapes."
        )
    program, returned = trace(loss, params, traced)
    stated = {leaf.path: leaf.group for leaf in plan.leaves}
    with double_precision():
        probe = Probe(loss, params, traced, seed)
        given = {p: probe.deviation(tied_with(p, stated)) for p in stated}
        hint = _hint(returned, find_penalties(program, params), stated)
        _check_stated(probe, plan, given, hint)
    findings = {
        entry.path: Finding(
            entry.path,
            tuple(jnp.shape(entry.leaf)),
            stated.get(entry.path),
            "stated",
            reason="" if entry.path in stated else "ordinary, unchecked",
            deviation=given.get(entry.path),
        )
        for entry in entries(params)
        if not entry.is_hole
    }
    return make_report(params, with_notes(findings, params))


def _hint(
    returned: int, penalties: list[Penalty], stated: dict[str, ScaleGroup]
) -> str:
    """Return what is the matter with a loss whose scale matters, if known."""
    if returned > 1:
        return (
            f"All {returned} arrays that loss_fn returns count: return the loss"
            " alone."
        )
    text = advice(penalties, stated, "check_groups")
    return text and f"{text}."


def _check_stated(
    probe: Probe, plan: Plan, given: dict[str, float], hint: str
) -> None:
    """Check that the loss does not change with the scale of stated groups.

    Args:
        probe: the loss.
        plan: the groups.
        given: their deviations at the given weights.
        hint: the advice if scale matters, if there is one.

    Raises:
        ValueError: it does.
    """
    stated = {leaf.path: leaf.group for leaf in plan.leaves}
    wrong, reasons = [], set()
    for leaf in plan.leaves:
        tied = tied_with(leaf.path, stated)
        large = probe.deviation_if_large(tied)
        change = max(given[leaf.path], large)
        text = f"{leaf} (relative change {change:.1e})"
        if large > probe.tolerance:
            reasons.add("matters")
        elif given[leaf.path] > NOTICEABLE:
            reasons.add("epsilon")
        elif not probe.is_smooth(tied):
            text = f"{leaf} (suddenly)"
            reasons.add("bound")
        else:
            continue
        wrong.append(text)
    if not wrong:
        return
    remedy = {
        frozenset({"epsilon"}): (
            "At large weights it does not: is the epsilon of a norm not small"
            " beside them? normalize them first."
        ),
        frozenset({"bound"}): (
            "Is there a bound on their norm, or a threshold? Give them None."
        ),
    }.get(
        frozenset(reasons), "Give them None, or ask find_groups for what holds."
    )
    if hint and "matters" in reasons:
        remedy = hint
    raise ValueError(
        f"the loss changes with the scale of {'; '.join(wrong)}. {remedy}"
    )
