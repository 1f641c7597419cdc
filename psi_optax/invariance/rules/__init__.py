"""How each primitive passes on what scales: one file for each kind."""

from psi_optax.invariance.rules import (
    collectives as collectives,
    contractions as contractions,
    decompositions as decompositions,
    elementwise as elementwise,
    indexing as indexing,
    reductions as reductions,
    refs as refs,
    shapes as shapes,
)
from psi_optax.invariance.rules.reductions import (
    without_lookups as without_lookups,
)
from psi_optax.invariance.rules.table import (
    apply as apply,
    reach as reach,
    unknown as unknown,
)
