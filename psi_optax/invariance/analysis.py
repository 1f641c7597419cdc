"""The proof: which scales a loss does not see, and why it sees the others."""

import dataclasses
import itertools
import math
import textwrap
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from psi_optax.groups import ScaleGroup
from psi_optax.groups.paths import Tree, entries
from psi_optax.invariance import compat, interpreter
from psi_optax.invariance.equations import Equations
from psi_optax.invariance.forms import Variable
from psi_optax.invariance.symmetry import (
    Parameter,
    Partners,
    Symmetry,
    find_symmetries,
    is_elementwise,
)
from psi_optax.invariance.values import (
    Bound,
    Context,
    Reason,
    Stop,
    Value,
    Waiver,
)

UNREACHED = "no gradient reaches it: drop it, unless its value matters"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the analysis says of one parameter.

    Attributes:
        group: its scale groups; None if there are none that can be stated.
        kind: "proved", "ordinary", "inert" or "partly".
        epsilon: the largest constant that a norm of it absorbs; 0 if exact.
        bound: the least of the bounds that clip what scales with it, and that
            are taken not to act; infinite if there is none.
        reason: why it has no groups, in words; "" if it has.
    """

    group: ScaleGroup | None
    kind: str
    epsilon: float = 0.0
    reason: str = ""
    bound: float = math.inf


def analyse(
    loss: Callable[..., Any],
    params: Tree,
    *args: Any,
    max_epsilon: float = 1e-3,
) -> dict[str, Verdict]:
    """A verdict for each parameter, by path.

    Only shapes and dtypes of params and args are looked at.

    Args:
        loss: a function of params and args; every array that it returns has to
            keep its value.
        params: arrays or `jax.ShapeDtypeStruct`s.
        args: the same.
        max_epsilon: a constant up to this that is added to something that
            scales is taken for the epsilon of a norm, and passed over.
    """
    program, _ = compat.make_jaxpr(loss, params, *args)
    return analyse_program(program, params, args, max_epsilon)


def analyse_program(
    program: Any, params: Tree, args: Any, max_epsilon: float
) -> dict[str, Verdict]:
    """Return what `analyse` does, of a loss that is traced already.

    Args:
        program: the jaxpr of the loss.
        params: see `analyse`.
        args: see `analyse`.
        max_epsilon: see `analyse`.
    """
    equations = Equations()
    context = Context(equations, max_epsilon)
    operands, parameters = [], []
    for bit, entry in enumerate(e for e in entries(params) if not e.is_hole):
        shape = tuple(np.shape(entry.leaf))
        form = {}
        if jax.numpy.issubdtype(
            jax.dtypes.result_type(entry.leaf), np.floating
        ):
            form = equations.unknown(shape)
            parameters.append(Parameter(entry.path, shape, form))
        operands.append(Value(shape, form, reach=1 << bit, alive=1))
    operands += map(interpreter.argument, jax.tree.leaves(args))
    reach = _run(context, program, operands)
    bits = {e.path: bit for bit, e in enumerate(_shown(params))}
    still = [p for p in parameters if not reach >> bits[p.path] & 1]
    symmetries = find_symmetries(
        equations,
        parameters,
        still,
        [*context.waivers, *context.bounds, *context.stops],
    )
    partners = Partners(equations, parameters)
    return {
        p.path: _verdict(
            context,
            p,
            partners,
            symmetries.get(p.path),
            bool(reach >> bits[p.path] & 1),
        )
        for p in parameters
    }


def _shown(params: Tree) -> list:
    return [entry for entry in entries(params) if not entry.is_hole]


def _run(context: Context, program, operands) -> int:
    """Interprets the program; returns which parameters have a gradient."""
    reach = 0
    for value in interpreter.run(context, program, operands):
        context.primitive = "result"
        value = context.settle(value)
        context.invariant(value, "output", "what the loss returns scales")
        reach |= value.reach
    return reach


def _verdict(
    context: Context,
    parameter: Parameter,
    partners: Partners,
    symmetry: Symmetry | None,
    reached: bool,
) -> Verdict:
    if not reached:
        return Verdict(None, "inert", reason=UNREACHED)
    if symmetry is None:
        return _ordinary(context, parameter, partners)
    if symmetry.group is None:
        return Verdict(
            None,
            "partly",
            reason="a part of it is scale-invariant: split it in separate"
            " parameters, one for each part",
        )
    if symmetry.group.tie is None and is_elementwise(
        symmetry.group, parameter.shape
    ):
        return _signs_alone(symmetry)
    return Verdict(
        symmetry.group,
        "proved",
        _epsilon(symmetry),
        bound=_bound(symmetry),
    )


def _signs_alone(symmetry: Symmetry) -> Verdict:
    """Return the verdict on a parameter whose elements all scale freely.

    Its derivative is zero by Euler's identity, unless a part of it is stopped.
    """
    for stop in symmetry.scaled:
        if isinstance(stop, Stop):
            reason = (
                "only the signs of its elements matter to the loss, but"
                f" {stop.by} gives it a gradient, at {stop.site}"
            )
            return Verdict(None, "ordinary", reason=reason)
    return Verdict(
        None, "inert", reason="only the signs of its elements matter"
    )


def _epsilon(symmetry: Symmetry) -> float:
    """Return the largest constant that is ignored where the groups scale."""
    waivers = (x for x in symmetry.scaled if isinstance(x, Waiver))
    return max((waiver.constant for waiver in waivers), default=0.0)


def _bound(symmetry: Symmetry) -> float:
    """Return the least bound that is passed over where the groups scale."""
    bounds = (x for x in symmetry.scaled if isinstance(x, Bound))
    return min((bound.number for bound in bounds), default=math.inf)


def _ordinary(context: Context, one: Parameter, partners: Partners) -> Verdict:
    equations = context.equations
    if equations.reduce(one.form):
        # More than this many do not fit, however short their paths are.
        some = itertools.islice(partners.of(one.path), 90)
        others = textwrap.shorten(", ".join(some), 90, placeholder=" ...")
        return Verdict(
            None,
            "ordinary",
            reason=f"can be rescaled only against {others}",
        )
    chain = _chain(equations, next(iter(one.form)).variable)
    told = [reason for reason in chain if isinstance(reason, Reason)]
    text = "its scale matters"
    if told:
        last = told[-1]
        text = f"{last.text}, at {last.site}" if last.site else last.text
    return Verdict(None, "ordinary", reason=text)


def _chain(equations: Equations, variable: Variable) -> list[object]:
    """Why a variable vanished: the reasons for each step."""
    reasons: list[object] = []
    while (solved := equations.solved(variable)) is not None:
        reasons.append(solved.reason)
        if not solved.meaning:
            break
        variable = next(iter(solved.meaning)).variable
    return reasons
