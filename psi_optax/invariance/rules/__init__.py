"""How each primitive passes on what scales: one file for each kind."""

from psi_optax.invariance.rules import collectives as collectives
from psi_optax.invariance.rules import contractions as contractions
from psi_optax.invariance.rules import decompositions as decompositions
from psi_optax.invariance.rules import elementwise as elementwise
from psi_optax.invariance.rules import indexing as indexing
from psi_optax.invariance.rules import reductions as reductions
from psi_optax.invariance.rules import refs as refs
from psi_optax.invariance.rules import shapes as shapes
from psi_optax.invariance.rules.reductions import (
    without_lookups as without_lookups,
)
from psi_optax.invariance.rules.table import apply as apply
from psi_optax.invariance.rules.table import reach as reach
from psi_optax.invariance.rules.table import unknown as unknown
