"""Find scale groups, by proof and by measurement."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp

from psi_optax._text import summarize
from psi_optax.groups.types import Tree
from psi_optax.invariance.analysis import analyse
from psi_optax.invariance.analysis.proof import UNUSED
from psi_optax.invariance.analysis.reasons import RUNNING_AVERAGES
from psi_optax.invariance.cross_check import cross_check
from psi_optax.invariance.finding import Finding, Findings
from psi_optax.invariance.measurement import measure
from psi_optax.invariance.penalties import (
    Penalty,
    find_penalties,
    penalty_advice,
    reasons,
)
from psi_optax.invariance.probe.evaluation import UnmeasurableError
from psi_optax.invariance.probe.probe import Probe
from psi_optax.invariance.report import GroupReport, make_report
from psi_optax.invariance.tracing import (
    TracedLoss,
    double_precision,
    trace_loss,
)

METHODS = ("both", "analysis", "probe")
_NO_WEIGHTS = (
    "The loss depends on no parameter. Does it close over a model? It has to"
    " use the one that it is called with"
)
_TRAINING_MODE = (
    "A BatchNorm that uses running averages does not make weights"
    " scale-invariant: find groups in training mode (NNX: model.train(); Linen:"
    " use_running_average=False; Equinox: inference=False; Haiku:"
    " is_training=True)"
)


def find_groups(
    loss_fn: Callable[..., Any],
    params: Tree,
    *args: Any,
    has_aux: bool = False,
    axis_name: str | Sequence[str] | None = None,
    method: str = "both",
    max_epsilon: float = 1e-3,
    seed: int = 0,
) -> GroupReport:
    r"""Find the scale-invariant weights, with their axes and a proof.

    Two independent methods are combined. The *analysis* is a proof: it follows,
    through the program of the loss, the power of its weights' scales that each
    value is multiplied by. It needs shapes only. The *probe* is a measurement
    in double precision, on the given arguments: it rescales weights, and checks
    Euler's identity. With both, all proved groups are rescaled jointly, and one
    gradient is computed if any parameter is inert; a contradiction is an error.
    Only parameters without a proof are searched.

    The groups are the finest that a `ScaleGroup` can state: first those of each
    parameter alone; then, of parameters without groups, the smallest sets that
    scale together, which are tied. The probe looks for pairs of one layer only.
    Any of the groups can be rescaled independently.

    Arrays that the loss closes over are data like its arguments, whatever
    their size. NumPy scalars and Python numbers are constants of the program.
    Data whose elements are all equal may be a flag, a counter or a running
    average: a measured group is invariant with other values as well.

    The loss is compiled once, in double precision. Its gradient is compiled
    only if a parameter is inert, or may be invariant without a proof, or if
    many have no proof. With both methods, the loss is evaluated about 15 times,
    five times more with such data, and up to four times more for each parameter
    without a proof, unless one gradient takes less time: pass a small batch.

    Analyse the loss *of training*: with running averages a BatchNorm is not
    invariant. All arrays that `loss_fn` returns have to be invariant: if it
    returns statistics or logits beside the loss, pass `has_aux=True`. Nor may
    it add a penalty on weights, such as a sum of squares, which sees their
    scale: the report names its line.

    Args:
        loss_fn: called as loss_fn(params, \*args); returns a scalar or any
            tree of arrays, such as the network's output. Random keys have to be
            arguments, or fixed. A Flax Linen module stands for its output:
            `find_groups(model, variables, images)`.
        params: arrays or `jax.ShapeDtypeStruct`s; traced arrays are taken for
            shapes, inside `jax.jit` or `jax.vmap`. A Flax NNX model, an Equinox
            module, and variables of Flax Linen are taken as they are, and not
            changed; the report is on the tree that the optimizer gets:
            `nnx.state(model, nnx.Param)`, `eqx.filter(model,
            eqx.is_inexact_array)`, `variables["params"]`.
        args: arrays, or shapes; `nnx.Rngs` and other NNX objects;
            `eqx.nn.State`. Anything else that the loss takes stays fixed:
            flags, names, None.
        has_aux: whether the loss returns a pair (loss, aux), as for `jax.grad`;
            aux is ignored.
        axis_name: the axes of devices that the loss names in collectives such
            as `jax.lax.pmean`; args are those of one device. Each axis has two
            devices, bound by `jax.vmap`, with different rows of data: a
            measurement holds for two.
        method: "analysis", "probe" or "both"; for shapes, the analysis alone.
            The probe alone searches all parameters, which takes the longest.
        max_epsilon: a constant up to this that is added to a scaled value, such
            as a variance, is ignored: "proved up to epsilon". So is an argument
            that is one positive number up to this. For values that are clipped
            to a range beyond 1 / max_epsilon, the proof holds where the clip
            has no effect: "proved within a bound".
        seed: seed of the probe's random factors.

    Returns:
        The report, which is accepted wherever groups are.

    Raises:
        TypeError: no parameter is a floating-point array; an object without
            weights, such as a class, a Linen module or an `nnx.Optimizer`;
            no pair is returned with `has_aux`.
        NameError: the loss names an axis that `axis_name` does not.
        ValueError: the loss returns nothing, or nothing that has a gradient, or
            a non-finite number, or another value at each call; an unknown
            method; `method="probe"` of a loss that does not run here, or has
            no derivative.
        RuntimeError: a measurement contradicts the proof.

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
    loss = trace_loss(loss_fn, params, args, has_aux, axis_name)
    if method == "probe" and loss.has_shapes:
        raise ValueError(
            'method="probe" needs arrays, but params or args hold shapes: pass'
            ' arrays, or method="analysis".'
        )
    unproved = {
        entry.path: Finding(
            entry.path,
            tuple(jnp.shape(entry.leaf)),
            None,
            "ordinary",
            reason="not found to be scale-invariant",
        )
        for entry in loss.parameters
    }

    def prove(epsilon: float) -> Findings:
        return unproved | analyse(loss, epsilon)

    findings = unproved if method == "probe" else prove(max_epsilon)
    remarks = []
    if method != "analysis" and not loss.has_shapes:
        try:
            with double_precision():
                probe = Probe(loss, seed)
                findings = cross_check(probe, findings, lambda: prove(0.0))
                findings = measure(probe, findings)
        except UnmeasurableError as error:
            if method == "probe":
                raise
            remarks.append(f"This is the analysis alone: {error}")
    return _report(loss, findings, remarks)


def _report(
    loss: TracedLoss, findings: Findings, remarks: list[str]
) -> GroupReport:
    """Return the report, with advice on the loss."""
    penalties = find_penalties(loss)
    findings = _name_penalties(findings, penalties)
    ordinary = [p for p, f in findings.items() if f.kind == "ordinary"]
    remarks = [
        *remarks,
        penalty_advice(penalties, ordinary, "find_groups"),
        *_remarks_on_reasons(findings),
        _remark_on_data(loss.data),
    ]
    advice = ". ".join(filter(None, remarks))
    return make_report(loss.params, findings, loss.returned, advice)


def _remarks_on_reasons(findings: Findings) -> Iterator[str]:
    """Yield advice on reasons that have one cause."""
    reasons = [finding.reason for finding in findings.values()]
    if any(RUNNING_AVERAGES in reason for reason in reasons):
        yield _TRAINING_MODE
    if all(reason == UNUSED for reason in reasons):
        yield _NO_WEIGHTS


def _remark_on_data(names: Sequence[str]) -> str:
    """Return which collections were not searched; "" of BatchNorm's alone."""
    others = [repr(name) for name in names if name != "batch_stats"]
    if not others:
        return ""
    return (
        f"{summarize(others)} beside 'params' is data, not searched, as in"
        ' Flax Linen variables: if it is trained, wrap the tree, {"net": tree}'
    )


def _name_penalties(findings: Findings, penalties: list[Penalty]) -> Findings:
    """Return the findings with penalties as reasons where scale matters."""
    known = reasons(penalties)
    return {
        path: dataclasses.replace(finding, reason=known[path])
        if finding.kind == "ordinary" and path in known
        else finding
        for path, finding in findings.items()
    }
