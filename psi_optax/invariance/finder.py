"""Find scale groups, by proof and by measurement."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from psi_optax.groups.paths import Entry, Tree, entries
from psi_optax.invariance.analysis import Verdict, analyse_program
from psi_optax.invariance.cross_check import Findings, confront
from psi_optax.invariance.penalties import advice, find_penalties, reasons
from psi_optax.invariance.probe.evaluation import UnmeasurableError
from psi_optax.invariance.probe.measurement import measure
from psi_optax.invariance.probe.probe import Probe
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
    measurement in double precision, on the given arguments: rescaled weights
    and Euler's identity. With both, all that is proved is confronted with
    weights that are rescaled jointly, and with one gradient if anything is
    inert; a contradiction is an error. Only what is not proved is searched.

    The groups are the finest that a `ScaleGroup` can state: first of each
    parameter alone; then, of what has none, the smallest sets that scale
    together, which are tied; the probe looks for pairs of one layer only. Any
    of them can be rescaled independently.

    Arrays that the loss closes over are data like its arguments, whatever
    their size. NumPy scalars and Python numbers are constants of the program.

    The loss is compiled once, in double precision; its gradient, only if
    anything is inert or may be invariant without a proof. With both, it is
    evaluated about 15 times, and up to four times more for each parameter of
    which nothing is proved: hand it a small batch.

    Analyse the loss *of training*: with running averages a BatchNorm is not
    invariant. All that `loss_fn` returns has to be invariant, so it should not
    return new statistics, or logits. Nor may it add a penalty on weights, such
    as a sum of squares, which sees their scale: the report says where one is.

    Args:
        loss_fn: called as loss_fn(params, \*args); returns a scalar or any
            tree of arrays. Random keys have to be arguments, or fixed.
        params: arrays or `jax.ShapeDtypeStruct`s.
        args: arrays, or shapes, or anything else that the loss takes, which is
            left as it is: flags, names, None.
        method: "analysis", "probe" or "both"; of shapes there is but analysis.
            The probe alone searches all parameters, which takes the longest.
        max_epsilon: a constant up to this that is added to something that
            scales, as to a variance, is passed over: "proved up to epsilon".
            So is an argument that is one positive number up to this. Of what
            is clipped to a range beyond 1 / max_epsilon, the proof holds where
            the clip does not act: "proved within a bound".
        seed: of the random factors of the probe.

    Returns:
        The report, which is accepted wherever groups are.

    Raises:
        TypeError: no parameter is a floating-point array.
        ValueError: the loss returns nothing, or nothing that has a gradient,
            or what is not finite, or something else at each call; an unknown
            method; `method="probe"` of a loss that does not run here, or has
            no derivative.
        RuntimeError: what is proved is not what is measured.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
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
    loss, traced = with_static(loss_fn, args)
    program, returned = trace(loss, params, traced)
    shapes = any_shapes((params, traced))
    if method == "probe" and shapes:
        raise ValueError(
            'method="probe" needs arrays, but params or args hold shapes: pass'
            ' arrays, or take method="analysis".'
        )

    def prove(epsilon: float) -> Findings:
        verdicts = {}
        if method != "probe":
            verdicts = analyse_program(program, params, traced, epsilon)
        return {
            entry.path: _proved(entry, verdicts.get(entry.path))
            for entry in entries(params)
            if not entry.is_hole
        }

    findings, unmeasured = prove(max_epsilon), ""
    if method != "analysis" and not shapes:
        try:
            with double_precision():
                probe = Probe(loss, params, traced, seed)
                findings = confront(probe, findings, lambda: prove(0.0))
                findings = measure(probe, findings)
        except UnmeasurableError as error:
            if method == "probe":
                raise
            unmeasured = f"This is the analysis alone: {error}"
    penalties = find_penalties(program, params)
    findings = _penalized(findings, reasons(penalties))
    matter = {p for p, f in findings.items() if f.kind == "ordinary"}
    return make_report(
        params,
        with_notes(findings, params),
        returned,
        ". ".join(
            text
            for text in (unmeasured, advice(penalties, matter, "find_groups"))
            if text
        ),
    )


def _penalized(
    findings: dict[str, Finding], reasons: dict[str, str]
) -> dict[str, Finding]:
    """Return the findings with penalties named where scale matters."""
    return {
        path: dataclasses.replace(finding, reason=reasons[path])
        if finding.kind == "ordinary" and path in reasons
        else finding
        for path, finding in findings.items()
    }


def _proved(entry: Entry, verdict: Verdict | None) -> Finding:
    shape = tuple(jnp.shape(entry.leaf))
    if verdict is None:
        reason = "not found to be invariant"
        return Finding(entry.path, shape, None, "ordinary", reason=reason)
    kind = verdict.kind
    if kind == "proved" and verdict.epsilon:
        kind = "proved up to epsilon"
    if verdict.bound < math.inf:
        kind = "proved within a bound"
    return Finding(
        entry.path,
        shape,
        verdict.group,
        kind,
        verdict.epsilon,
        reason=verdict.reason,
        bound=verdict.bound,
    )
