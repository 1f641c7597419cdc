"""Find the groups of parameters that the equations leave free to scale.

The free unknowns may scale a parameter alone, several in the same way, or one
up and another one down. The first two are scale groups.
"""

from collections.abc import Iterable, Sequence

from psi_optax.invariance.analysis.equations import Equations
from psi_optax.invariance.analysis.isolation import components, hold, isolate
from psi_optax.invariance.analysis.linear_forms import HasForm, minus
from psi_optax.invariance.analysis.parameters import Parameter
from psi_optax.invariance.analysis.scale_groups import (
    FinestGroups,
    groups_of_one,
)
from psi_optax.invariance.analysis.ties import find_ties


def find_symmetries(
    equations: Equations,
    parameters: Iterable[Parameter],
    held: Iterable[Parameter] = (),
    watched: Iterable[HasForm] = (),
) -> dict[str, FinestGroups]:
    """Return the groups of each parameter that has any.

    First each parameter alone, with all others held; such groups can be scaled
    independently of each other. Then, of the parameters without groups, the
    smallest sets that scale together.

    Args:
        equations: the equations of the program.
        parameters: the parameters to find groups of.
        held: those of them that do not scale, for want of a gradient.
        watched: see `Symmetry.scaled`.
    """
    equations = hold(equations, held)
    parameters, watched = list(parameters), list(watched)
    everything, paths = [*parameters, *watched], {p.path for p in parameters}
    found = {}
    for isolated in isolate(equations, everything, paths):
        symmetry = groups_of_one(isolated)
        if symmetry is not None:
            found[isolated.parameter.path] = symmetry
    joint, lost = equations, {}
    for as_wholes in (False, True):
        joint = hold(joint, (p for p in parameters if p.path in found))
        rest = [p for p in parameters if p.path not in found]
        if as_wholes:
            joint = _scale_as_wholes(joint, rest)
        for component in components(joint, [*rest, *watched]):
            tied, overlapping = find_ties(joint, component)
            found |= tied
            lost |= overlapping
    return lost | found


def _scale_as_wholes(
    equations: Equations, parameters: Sequence[Parameter]
) -> Equations:
    """Return the equations where each parameter scales as a whole.

    A part of one may scale with another parameter alone, so that no
    `ScaleGroup` states a smallest set: a class token, the first of the
    positions, and the head of a stream. As wholes, all of them scale together.
    """
    narrowed = equations.copy()
    for one in parameters:
        if narrowed.reduce(one.form):
            scale = narrowed.unknown(())
            narrowed.require_zero(minus(one.form, scale), None)
    return narrowed
