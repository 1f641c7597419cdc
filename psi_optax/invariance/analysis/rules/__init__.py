"""How each primitive passes on what scales: one file for each kind."""

from psi_optax.invariance.analysis.rules import collectives as collectives
from psi_optax.invariance.analysis.rules import contractions as contractions
from psi_optax.invariance.analysis.rules import decompositions as decompositions
from psi_optax.invariance.analysis.rules import elementwise as elementwise
from psi_optax.invariance.analysis.rules import indexing as indexing
from psi_optax.invariance.analysis.rules import reductions as reductions
from psi_optax.invariance.analysis.rules import refs as refs
from psi_optax.invariance.analysis.rules import shapes as shapes
from psi_optax.invariance.analysis.rules.reductions import (
    without_lookups as without_lookups,
)
from psi_optax.invariance.analysis.rules.table import apply as apply
from psi_optax.invariance.analysis.rules.table import (
    dependencies as dependencies,
)
from psi_optax.invariance.analysis.rules.table import unknown as unknown
