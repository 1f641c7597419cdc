"""Prove which scales a loss does not see, and explain the others."""

import itertools
import math
import textwrap
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from psi_optax.groups import ScaleGroup
from psi_optax.invariance.analysis import interpreter
from psi_optax.invariance.analysis.context import Context
from psi_optax.invariance.analysis.equations import Equations
from psi_optax.invariance.analysis.notes import CustomGradient, IgnoredNumber
from psi_optax.invariance.analysis.parameters import Parameter
from psi_optax.invariance.analysis.partners import Partners
from psi_optax.invariance.analysis.reasons import describe
from psi_optax.invariance.analysis.scale_groups import (
    FinestGroups,
    is_elementwise,
)
from psi_optax.invariance.analysis.symmetries import find_symmetries
from psi_optax.invariance.analysis.values import Value
from psi_optax.invariance.finding import Finding, Findings, Kind
from psi_optax.invariance.sites import function_site, result_sites
from psi_optax.invariance.tracing import TracedLoss, is_weight

UNUSED = "the loss does not depend on it"
CANCELLED = "it is subtracted again with a mean: drop it"
UNREACHED = "it gets no gradient, but its value matters: keep it"
PARTLY = (
    "a part of it is scale-invariant: split it into separate parameters, one"
    " for each part"
)
_RESCALING = "rescaling symmetry"


def analyse(loss: TracedLoss, max_epsilon: float = 1e-3) -> Findings:
    """Return a finding for each weight, by path.

    Only the program, shapes and dtypes are read, and arguments that are one
    number. All arrays that the loss returns have to keep their values.

    Args:
        loss: the loss.
        max_epsilon: a constant up to this that is added to a scaled value
            counts as the epsilon of a norm, and is ignored.
    """
    entries = loss.parameters
    equations = Equations()
    site = function_site(loss.program)
    context = Context(equations, max_epsilon, len(entries), site=site)
    parameters, operands = [], []
    for index, entry in enumerate(entries):
        shape = tuple(np.shape(entry.leaf))
        form, bits = {}, 0
        if math.prod(shape):
            bits = 1 << index | 1 << index + len(entries)
            form = equations.unknown(shape) if is_weight(entry.leaf) else {}
        if is_weight(entry.leaf):
            parameters.append(Parameter(entry.path, shape, form))
        operands.append(Value(shape, form, depends_on=bits, nonzero=1))
    operands += map(interpreter.data_value, jax.tree.leaves(loss.args))
    bits = _run(context, loss.program, operands)
    inert = {
        entry.path: _reason_for_inert(context, bits, index)
        for index, entry in enumerate(entries)
        if not bits >> index & 1
    }
    proof = _Proof.of(context, parameters, inert)
    return {p.path: proof.finding(p) for p in parameters}


def _run(context: Context, program: Any, operands: list[Value]) -> int:
    """Interpret a program; return the dependencies of its results."""
    bits = 0
    found = interpreter.run(context, program, operands)
    for value, site in zip(found, result_sites(program), strict=True):
        at_result = context.at_result(site)
        value = at_result.resolve_offsets(value)
        text = "the loss returns it scaled"
        at_result.require_invariant(value, "output", text)
        bits |= value.depends_on
    return bits


def _reason_for_inert(context: Context, bits: int, index: int) -> str:
    """Return why a parameter gets no gradient."""
    if bits >> index + context.parameters & 1:
        return UNREACHED
    return CANCELLED if context.notes.cancelled >> index & 1 else UNUSED


class _Proof(NamedTuple):
    """The equations of a loss, and the symmetries that solve them.

    Attributes:
        context: the analysis.
        symmetries: the groups of parameters that have any, by path.
        partners: the parameters that scale whenever another does.
        inert: the reasons of parameters without a gradient, by path.
    """

    context: Context
    symmetries: dict[str, FinestGroups]
    partners: Partners
    inert: dict[str, str]

    @classmethod
    def of(
        cls,
        context: Context,
        parameters: list[Parameter],
        inert: dict[str, str],
    ) -> "_Proof":
        """Find the symmetries of a program that is interpreted."""
        equations, notes = context.equations, context.notes
        symmetries = find_symmetries(
            equations,
            parameters,
            [p for p in parameters if p.path in inert],
            [*notes.ignored, *notes.custom_gradients],
        )
        return cls(context, symmetries, Partners(equations, parameters), inert)

    def finding(self, parameter: Parameter) -> Finding:
        """Return the finding on a parameter."""
        if parameter.path in self.inert:
            return _without_groups(
                parameter, "inert", self.inert[parameter.path]
            )
        symmetry = self.symmetries.get(parameter.path)
        if symmetry is None:
            return _without_groups(parameter, "ordinary", self._why(parameter))
        if symmetry.shared:
            text = _overlap(symmetry, self.symmetries)
            return _without_groups(parameter, "ordinary", text)
        if symmetry.group is None:
            return _without_groups(parameter, "partly", PARTLY)
        return _with_groups(parameter, symmetry.group, symmetry)

    def _why(self, parameter: Parameter) -> str:
        """Return why a parameter without groups cannot scale."""
        if self.context.equations.reduce(parameter.form):
            return self._symmetry_without_groups(parameter.path)
        reason = self.context.why_zero(parameter.form)
        return "its scale matters" if reason is None else describe(reason)

    def _symmetry_without_groups(self, path: str) -> str:
        opposite = _listed(self.partners.against(path))
        if opposite:
            return f"{_RESCALING}: its scale cancels only against {opposite}"
        others = _listed(self.partners.of(path))
        if not others:
            return f"{_RESCALING}: its parts cancel only against each other"
        return f"scales only in part or with others, {others}"


def _without_groups(parameter: Parameter, kind: Kind, reason: str) -> Finding:
    return Finding(parameter.path, parameter.shape, None, kind, reason=reason)


def _with_groups(
    parameter: Parameter, group: ScaleGroup, symmetry: FinestGroups
) -> Finding:
    """Return the finding on a parameter with groups, or with signs alone."""
    epsilon, bound = _epsilon(symmetry), _bound(symmetry)
    kind: Kind = "proved up to epsilon" if epsilon else "proved"
    if bound < math.inf:
        kind = "proved within a bound"
    is_single = is_elementwise(group, parameter.shape) and group.tie is None
    if kind == "proved" and is_single:
        return _signs_alone(parameter, symmetry)
    return Finding(
        parameter.path, parameter.shape, group, kind, epsilon, bound=bound
    )


def _signs_alone(parameter: Parameter, symmetry: FinestGroups) -> Finding:
    """Return the finding on a parameter whose elements all scale freely.

    Its derivative is zero by Euler's identity, unless a part of it is stopped.
    """
    text = "only the signs of its elements matter"
    for x in symmetry.scaled:
        if isinstance(x, CustomGradient):
            text += f" to the loss, but {x.by} gives it a gradient, at {x.site}"
            return _without_groups(parameter, "ordinary", text)
    return _without_groups(parameter, "inert", text)


def _epsilon(symmetry: FinestGroups) -> float:
    """Return the largest epsilon that is ignored where the groups scale."""
    return max(_ignored("epsilon", symmetry), default=0.0)


def _bound(symmetry: FinestGroups) -> float:
    """Return the least bound that is ignored where the groups scale."""
    return min(_ignored("bound", symmetry), default=math.inf)


def _ignored(kind: str, symmetry: FinestGroups) -> list[float]:
    numbers = [x for x in symmetry.scaled if isinstance(x, IgnoredNumber)]
    return [number.size for number in numbers if number.kind == kind]


def _overlap(
    symmetry: FinestGroups, symmetries: dict[str, FinestGroups]
) -> str:
    """Return in which tie a parameter would be, if others were not tied."""
    ties = {path: s.group.tie for path, s in symmetries.items() if s.group}
    taken = [path for path in symmetry.shared if path in ties]
    others = [path for path in symmetry.shared if path not in ties]
    wanted = sorted({tie for path in taken if (tie := ties[path])})
    text = f"shares a scale with {_listed(taken)}"
    if others:
        text += f" only together with {_listed(others)}"
    return f"{text} (in the tie {_listed(wanted)}: one of both can be stated)"


def _listed(paths: Iterable[str]) -> str:
    # More than this many do not fit, however short they are.
    first = itertools.islice(paths, 90)
    return textwrap.shorten(", ".join(first), 90, placeholder=" ...")
