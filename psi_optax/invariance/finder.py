"""Find scale groups, by proof and by measurement, or check a claim."""

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax.groups import Plan, ScaleGroup, make_plan
from psi_optax.groups.describe import zero_notes
from psi_optax.groups.paths import Tree, entries
from psi_optax.invariance import compat
from psi_optax.invariance.analysis import Verdict, analyse, analyse_program
from psi_optax.invariance.probe import NOTICEABLE, Probe
from psi_optax.invariance.report import Finding, GroupReport, make_report
from psi_optax.invariance.search import find_measured

METHODS = ("both", "analysis", "probe")


def find_groups(
    loss_fn: Callable[..., Any],
    params: Tree,
    *args: Any,
    method: str = "both",
    max_epsilon: float = 1e-3,
    seed: int = 0,
) -> GroupReport:
    r"""Find the scale-invariant weights, with their axes and a proof.

    Two methods that know nothing of each other. The *analysis* is a proof: it
    follows through the program of the loss by which power of its weights'
    scales each value is multiplied. It needs shapes only. The *probe* is a
    measurement in double precision, on the given arguments: Euler's identity
    and rescaled weights. With both, all that is proved is confronted with
    rescaled weights and one gradient; a contradiction is an error.

    The groups are the finest that a `ScaleGroup` can state: first of each
    parameter alone; then, of what has none, the smallest sets that scale
    together, which are tied; the probe looks for pairs of one layer only. Any
    of them can be rescaled independently.

    Arrays that the loss closes over are data like its arguments, whatever
    their size. NumPy scalars and Python numbers are constants of the program.

    The probe evaluates the loss a few times for each parameter: hand it a
    small batch.

    Analyse the loss *of training*: with running averages a BatchNorm is not
    invariant. All that `loss_fn` returns has to be invariant, so it should not
    return new statistics, or logits.

    Args:
        loss_fn: called as loss_fn(params, \*args); returns a scalar or any
            tree of arrays. Random keys have to be arguments, or fixed.
        params: arrays or `jax.ShapeDtypeStruct`s.
        args: arrays, or shapes, or anything else that the loss takes, which is
            left as it is: flags, names, None.
        method: "analysis", "probe" or "both"; of shapes there is but analysis.
        max_epsilon: a constant up to this that is added to something that
            scales, as to a variance, is passed over: "proved up to epsilon".
        seed: of the random factors of the probe.

    Returns:
        The report, which is accepted wherever groups are.

    Raises:
        TypeError: no parameter is a floating-point array.
        ValueError: the loss returns nothing, or nothing that has a gradient,
            or what is not finite, or something else at each call; an unknown
            method.
        RuntimeError: what is proved is not what is measured.

    Examples:
        >>> def loss(params, x):
        ...     y = x @ params["kernel"] + params["bias"]
        ...     y = (y - y.mean(0)) / jnp.sqrt(y.var(0) + 1e-5)
        ...     return jnp.sum(jnp.tanh(y) @ params["head"])
        >>> params = {"kernel": jnp.ones((3, 4)), "bias": jnp.zeros(4),
        ...           "head": jnp.ones(4)}
        >>> x = jax.ShapeDtypeStruct((8, 3), jnp.float32)
        >>> report = find_groups(loss, params, x)
        >>> report.groups
        {'bias': None, 'head': None, 'kernel': ScaleGroup(axes=(0,))}
        >>> for path in params:
        ...     print(f"{path}: {report[path].kind}")
        kernel: proved up to epsilon
        bias: inert
        head: ordinary
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r}: choose one of {METHODS}.")
    loss, traced = _with_static(loss_fn, args)
    program, returned = _trace(loss, params, traced)
    shapes = _any_shapes((params, traced))
    if method == "probe" and shapes:
        raise ValueError(
            'method="probe" needs arrays, but params or args hold shapes: pass'
            ' arrays, or take method="analysis".'
        )
    verdicts: dict[str, Verdict] = {}
    if method != "probe":
        verdicts = analyse_program(program, params, traced, max_epsilon)
    findings = {
        entry.path: _proved(entry, verdicts.get(entry.path))
        for entry in entries(params)
        if not entry.is_hole
    }
    if method != "analysis" and not shapes:
        with _double_precision():
            probe = Probe(loss, params, traced, seed)
            doubtful = _doubtful(probe, findings)
            if doubtful:
                strict = analyse(loss, params, *traced, max_epsilon=0.0)
                for entry in (e for e in entries(params) if e.path in doubtful):
                    findings[entry.path] = _proved(entry, strict[entry.path])
            _confront(probe, findings)
            findings = _measured(probe, findings)
    return make_report(params, _with_notes(findings, params), returned)


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
    loss, traced = _with_static(loss_fn, args)
    if _any_shapes((params, traced)):
        raise ValueError(
            "check_groups measures, and needs arrays: params or args hold"
            " shapes."
        )
    _, returned = _trace(loss, params, traced)
    stated = {leaf.path: leaf.group for leaf in plan.leaves}
    with _double_precision():
        probe = Probe(loss, params, traced, seed)
        given = {p: probe.deviation(_tied_with(p, stated)) for p in stated}
        _check_stated(probe, plan, given, returned)
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
    return make_report(params, _with_notes(findings, params))


def _check_stated(
    probe: Probe, plan: Plan, given: dict[str, float], returned: int
) -> None:
    """Check that the loss does not change with the scale of stated groups.

    Args:
        probe: the loss.
        plan: the groups.
        given: their deviations at the given weights.
        returned: how many arrays the loss returns.

    Raises:
        ValueError: it does.
    """
    stated = {leaf.path: leaf.group for leaf in plan.leaves}
    wrong, reasons = [], set()
    for leaf in plan.leaves:
        tied = _tied_with(leaf.path, stated)
        large = probe.deviation_if_large(tied)
        change = max(given[leaf.path], large)
        text = f"{leaf} (by {change:.1e})"
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
    advice = {
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
    if returned > 1 and "matters" in reasons:
        advice = (
            f"All {returned} arrays that loss_fn returns count: return the loss"
            " alone."
        )
    raise ValueError(
        f"the loss changes with the scale of {'; '.join(wrong)}. {advice}"
    )


# -- arguments ------------------------------------------------------------


def _with_static(loss_fn: Callable, args: tuple) -> tuple[Callable, tuple]:
    """The loss of its arrays alone, and these; the rest is fixed in it."""
    leaves, structure = jax.tree.flatten(args)
    traced = tuple(x for x in leaves if _is_array(x))

    def loss(params, *arrays):
        remaining = iter(arrays)
        filled = [next(remaining) if _is_array(x) else x for x in leaves]
        return loss_fn(params, *jax.tree.unflatten(structure, filled))

    return loss, traced


def _is_array(x: Any) -> bool:
    return isinstance(
        x, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct
    )


def _any_shapes(tree: Tree) -> bool:
    return any(
        isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(tree)
    )


def _trace(loss: Callable, params: Tree, args: tuple) -> tuple[Any, int]:
    """Return the program of the loss, and how many arrays it returns.

    Raises:
        TypeError: params hold something else than arrays, or no weights.
        ValueError: the loss has no gradient.
    """
    for entry in entries(params):
        if not entry.is_hole and not hasattr(entry.leaf, "dtype"):
            raise TypeError(
                f"params hold {entry.leaf!r} at {entry.path!r}, which is no"
                " array: pass the arrays alone, as eqx.partition parts them."
            )
    floats = [
        entry.path
        for entry in entries(params)
        if not entry.is_hole
        and jnp.issubdtype(jax.dtypes.result_type(entry.leaf), np.floating)
    ]
    if not floats:
        raise TypeError(
            "params hold no floating-point array; pass the weights, such as"
            " variables['params'] or nnx.state(model, nnx.Param)."
        )
    try:
        program, found = compat.make_jaxpr(loss, params, *args)
    except Exception as error:
        error.add_note(
            "while calling loss_fn(params, *args): it has to take params of"
            " this structure and these arguments, and to be traceable by jit."
        )
        raise
    dtypes = [x.dtype for x in jax.tree.leaves(found)]
    if not any(jnp.issubdtype(d, np.inexact) for d in dtypes):
        raise ValueError(
            f"loss_fn returns {found}, which has no gradient: return the loss,"
            " a floating-point array."
        )
    return program, len(dtypes)


@contextlib.contextmanager
def _double_precision() -> Iterator[None]:
    """Double precision, into which all may be promoted without a word."""
    with (
        warnings.catch_warnings(),
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
    ):
        # Running averages of a single-precision model, which nobody looks at.
        warnings.filterwarnings("ignore", "scatter inputs have incompatible")
        yield


# -- findings -------------------------------------------------------------


def _proved(entry, verdict: Verdict | None) -> Finding:
    shape = tuple(jnp.shape(entry.leaf))
    if verdict is None:
        reason = "not found to be invariant"
        return Finding(entry.path, shape, None, "ordinary", reason=reason)
    kind = verdict.kind
    if kind == "proved" and verdict.epsilon:
        kind = "proved up to epsilon"
    return Finding(
        entry.path,
        shape,
        verdict.group,
        kind,
        verdict.epsilon,
        reason=verdict.reason,
    )


def _measured(probe: Probe, findings: dict[str, Finding]) -> dict[str, Finding]:
    """The findings with what the probe says of each."""
    groups = {p: f.group for p, f in findings.items() if f.group is not None}
    found = dict(findings)
    for path in groups:
        deviation = probe.deviation(_tied_with(path, groups))
        found[path] = dataclasses.replace(found[path], deviation=deviation)
    open_ = [p for p, f in findings.items() if f.kind == "ordinary"]
    open_ = [p for p in open_ if p in probe.given]
    for path in [p for p in open_ if probe.is_inert(p)]:
        found[path] = dataclasses.replace(
            found[path],
            kind="inert",
            reason="changes nothing on these arguments",
        )
        open_.remove(path)
    more = find_measured(probe, open_)
    for path, group in more.items():
        deviation = probe.deviation(_tied_with(path, more))
        found[path] = dataclasses.replace(
            found[path], group=group, kind="measured", deviation=deviation
        )
    return found


def _with_notes(findings: dict[str, Finding], params) -> dict[str, Finding]:
    """The findings with notes on groups of norm zero, which never move."""
    groups = {path: finding.group for path, finding in findings.items()}
    notes = zero_notes(params, groups)
    return {
        path: dataclasses.replace(finding, note=notes.get(path, ""))
        for path, finding in findings.items()
    }


def _tied_with(path: str, groups: dict[str, ScaleGroup]) -> dict:
    """The groups of a parameter, and of those that it is tied to."""
    tie = groups[path].tie
    if tie is None:
        return {path: groups[path]}
    return {p: group for p, group in groups.items() if group.tie == tie}


def _doubtful(probe: Probe, findings: dict[str, Finding]) -> set[str]:
    """What is proved up to a constant that is not the epsilon of a norm.

    The effect of an epsilon falls as the weights grow. That of a constant
    which is added to something that may be zero does not.
    """
    groups = {p: f.group for p, f in findings.items() if f.group is not None}
    if not groups or probe.holds(groups):
        return set()
    return {
        path
        for path in groups
        if findings[path].epsilon and not probe.holds(_tied_with(path, groups))
    }


def _confront(probe: Probe, findings: dict[str, Finding]) -> None:
    """Check all that is proved: joint rescalings, and one gradient.

    Raises:
        RuntimeError: the loss changes, or a gradient that is proved to be zero
            is not.
    """
    groups = {p: f.group for p, f in findings.items() if f.group is not None}
    wrong = []
    if groups and not probe.holds(groups):
        wrong = [
            f"{path!r} with {groups[path]}: proved, but the loss changes by"
            f" {probe.deviation_if_large(_tied_with(path, groups)):.1e}"
            for path in groups
            if not probe.holds(_tied_with(path, groups))
        ] or ["all groups at once change the loss"]
    inert = [p for p, f in findings.items() if f.kind == "inert"]
    wrong += [
        f"{path!r}: inert, but it has a gradient"
        for path in inert
        if probe.has_gradient(path, groups)
    ]
    if wrong:
        raise RuntimeError(
            f"analysis and probe contradict each other: {'; '.join(wrong)}."
            " Please report it; meanwhile state groups by hand."
        )
