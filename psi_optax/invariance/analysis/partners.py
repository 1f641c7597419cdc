"""The parameters that scale whenever another one does."""

import heapq
import itertools
from collections.abc import Iterable, Iterator

from psi_optax.invariance.analysis.equations import Equations
from psi_optax.invariance.analysis.linear_forms import Variable
from psi_optax.invariance.analysis.parameters import Parameter

# An unknown, and whether an array scales with it or with its inverse.
Signed = tuple[Variable, bool]


class Partners:
    """The parameters that share unknowns with each parameter."""

    def __init__(
        self, equations: Equations, parameters: Iterable[Parameter]
    ) -> None:
        self._paths: list[str] = []
        self._own: dict[str, set[Signed]] = {}
        self._positions: dict[Signed, list[int]] = {}
        for position, one in enumerate(parameters):
            self._paths.append(one.path)
            form = equations.reduce(one.form)
            self._own[one.path] = {(t.variable, c > 0) for t, c in form.items()}
            for signed in self._own[one.path]:
                self._positions.setdefault(signed, []).append(position)

    def of(self, path: str) -> Iterator[str]:
        """Yield the paths of the partners of one, in the order of all."""
        own = {variable for variable, _ in self._own[path]}
        return self._with({(v, up) for v in own for up in (True, False)}, path)

    def against(self, path: str) -> Iterator[str]:
        """Yield the partners of one that scale inversely to it."""
        return self._with({(v, not up) for v, up in self._own[path]}, path)

    def _with(self, unknowns: Iterable[Signed], path: str) -> Iterator[str]:
        """Yield the paths, except one, that have some of the unknowns."""
        positions = heapq.merge(*(self._positions.get(v, ()) for v in unknowns))
        for position, _ in itertools.groupby(positions):
            if self._paths[position] != path:
                yield self._paths[position]
