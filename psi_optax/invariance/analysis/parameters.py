"""Parameters that an analysis follows."""

import dataclasses

from psi_optax.invariance.analysis.linear_forms import Form
from psi_optax.invariance.analysis.values import Shape


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter: its path, its shape, and the logarithms of its scales."""

    path: str
    shape: Shape
    form: Form
