"""The proof: which scales a loss does not see, and why it sees the others."""

import dataclasses
import itertools
import math
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from psi_optax.groups import ScaleGroup
from psi_optax.groups.paths import Tree, entries
from psi_optax.invariance import jaxprs
from psi_optax.invariance.analysis import interpreter
from psi_optax.invariance.analysis.equations import Equations
from psi_optax.invariance.analysis.reasons import describe
from psi_optax.invariance.analysis.symmetry import (
    Parameter,
    Partners,
    Symmetry,
    find_symmetries,
    is_elementwise,
)
from psi_optax.invariance.analysis.values import (
    Bound,
    Context,
    Stop,
    Value,
    Waiver,
)

UNUSED = "the loss does not depend on it"
CANCELLED = "it is subtracted again with a mean: drop it"
UNREACHED = "no gradient reaches it, but its value matters: keep it"


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
    program, _ = jaxprs.make_jaxpr(loss, params, *args)
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
    shown = [entry for entry in entries(params) if not entry.is_hole]
    equations = Equations()
    context = Context(equations, max_epsilon, len(shown))
    context.site = jaxprs.function_site(program)
    operands, parameters = [], []
    for bit, entry in enumerate(shown):
        shape = tuple(np.shape(entry.leaf))
        form, empty = {}, not math.prod(shape)
        if jax.numpy.issubdtype(
            jax.dtypes.result_type(entry.leaf), np.floating
        ):
            form = {} if empty else equations.unknown(shape)
            parameters.append(Parameter(entry.path, shape, form))
        reach = 0 if empty else 1 << bit | 1 << bit + len(shown)
        operands.append(Value(shape, form, depends_on=reach, nonzero=1))
    operands += map(interpreter.argument, jax.tree.leaves(args))
    reach = _run(context, program, operands)
    unreached = {
        entry.path: _unreached(context, reach, bit)
        for bit, entry in enumerate(shown)
        if not reach >> bit & 1
    }
    still = [p for p in parameters if p.path in unreached]
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
            symmetries,
            unreached.get(p.path),
        )
        for p in parameters
    }


def _unreached(context: Context, reach: int, bit: int) -> str:
    """Return what becomes of a parameter that no gradient reaches."""
    if reach >> bit + context.parameters & 1:
        return UNREACHED
    return CANCELLED if context.cancelled >> bit & 1 else UNUSED


def _run(context: Context, program, operands) -> int:
    """Interprets the program; returns the reach of what it returns."""
    reach = 0
    sites = jaxprs.result_sites(program)
    found = interpreter.run(context, program, operands)
    for value, site in zip(found, sites, strict=True):
        context.primitive, context.site = "result", site or context.site
        value = context.resolve_offsets(value)
        context.require_invariant(
            value, "output", "what the loss returns scales"
        )
        reach |= value.depends_on
    return reach


def _verdict(
    context: Context,
    parameter: Parameter,
    partners: Partners,
    symmetries: dict[str, Symmetry],
    unreached: str | None,
) -> Verdict:
    if unreached is not None:
        return Verdict(None, "inert", reason=unreached)
    symmetry = symmetries.get(parameter.path)
    if symmetry is None:
        return _ordinary(context, parameter, partners)
    if symmetry.shared:
        return Verdict(None, "ordinary", reason=_overlap(symmetry, symmetries))
    if symmetry.group is None:
        return Verdict(
            None,
            "partly",
            reason="a part of it is scale-invariant: split it into separate"
            " parameters, one for each part",
        )
    epsilon, bound = _epsilon(symmetry), _bound(symmetry)
    alone = symmetry.group.tie is None and epsilon == 0 and bound == math.inf
    if alone and is_elementwise(symmetry.group, parameter.shape):
        return _signs_alone(symmetry)
    return Verdict(symmetry.group, "proved", epsilon, bound=bound)


def _overlap(symmetry: Symmetry, symmetries: dict[str, Symmetry]) -> str:
    """Say which tie a parameter would be in, if others were not tied."""
    ties = {path: s.group.tie for path, s in symmetries.items() if s.group}
    taken = [path for path in symmetry.shared if path in ties]
    others = [path for path in symmetry.shared if path not in ties]
    wanted = sorted({tie for path in taken if (tie := ties[path])})
    text = f"shares a scale with {_listed(taken)}"
    if others:
        text += f" only together with {_listed(others)}"
    return f"{text} (in the tie {_listed(wanted)}: one of both can be stated)"


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
    if context.equations.reduce(one.form):
        return Verdict(None, "ordinary", reason=_against(one, partners))
    reason = context.why_zero(one.form)
    text = "its scale matters" if reason is None else describe(reason)
    return Verdict(None, "ordinary", reason=text)


def _against(one: Parameter, partners: Partners) -> str:
    """Return what a parameter scales with, in no way that can be stated."""
    opposite = _listed(partners.against(one.path))
    if opposite:
        return f"rescaling symmetry: its scale cancels only against {opposite}"
    others = _listed(partners.of(one.path))
    if not others:
        return "rescaling symmetry: its parts cancel only against each other"
    return f"scales only in part or with others, {others}"


def _listed(paths: Iterable[str]) -> str:
    # More than this many do not fit, however short they are.
    some = itertools.islice(paths, 90)
    return textwrap.shorten(", ".join(some), 90, placeholder=" ...")
