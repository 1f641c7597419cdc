"""Facts that an analysis collects along the program."""

from typing import Literal, NamedTuple

from psi_optax.invariance.analysis.linear_forms import Form, Variable
from psi_optax.invariance.analysis.values import ArrayIdentity


class IgnoredNumber(NamedTuple):
    """A number beside a value that scales, ignored by the proof.

    Attributes:
        kind: "epsilon", a small constant that is added; or "bound", a wide
            bound that is taken not to act.
        form: the form of the value.
        size: the absolute value of the number.
        site: the place in the user's source.
    """

    kind: Literal["epsilon", "bound"]
    form: Form
    size: float
    site: str


class CustomGradient(NamedTuple):
    """A value that scales, whose gradient is not that of its function.

    Attributes:
        form: the form of the value.
        by: the operation that changes the gradient.
        site: the place in the user's source.
    """

    form: Form
    by: str
    site: str


class Notes:
    """Assumptions of a proof, and names for its indices.

    Attributes:
        ignored: the epsilons and bounds that the proof ignores.
        custom_gradients: the values whose gradient is not theirs.
        loop_unknowns: the unknown scales of loop carries that begin with zeros.
        cancelled: the bits of parameters that are subtracted with a mean; see
            `Value.depends_on`.
    """

    def __init__(self) -> None:
        self.ignored: list[IgnoredNumber] = []
        self.custom_gradients: list[CustomGradient] = []
        self.loop_unknowns: set[Variable] = set()
        self.cancelled = 0
        self._numbers: dict[ArrayIdentity, int] = {}
        self._turns = 0

    def new_turn(self) -> str:
        """Return a name for the index of a loop."""
        self._turns += 1
        return f"turn {self._turns}"

    def number_of(self, identity: ArrayIdentity) -> int:
        """Return a number that no other identity has in this analysis."""
        return self._numbers.setdefault(identity, len(self._numbers))
