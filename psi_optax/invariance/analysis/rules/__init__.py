"""Rules for primitives, one file for each kind.

Importing this package registers all of them.
"""

from psi_optax.invariance.analysis.rules import collectives as collectives
from psi_optax.invariance.analysis.rules import contractions as contractions
from psi_optax.invariance.analysis.rules import decompositions as decompositions
from psi_optax.invariance.analysis.rules import elementwise as elementwise
from psi_optax.invariance.analysis.rules import indexing as indexing
from psi_optax.invariance.analysis.rules import products as products
from psi_optax.invariance.analysis.rules import reductions as reductions
from psi_optax.invariance.analysis.rules import refs as refs
from psi_optax.invariance.analysis.rules import selections as selections
from psi_optax.invariance.analysis.rules import shapes as shapes
from psi_optax.invariance.analysis.rules import slices as slices
from psi_optax.invariance.analysis.rules import sums as sums
from psi_optax.invariance.analysis.rules.table import Call as Call
from psi_optax.invariance.analysis.rules.table import apply as apply
from psi_optax.invariance.analysis.rules.table import (
    dependencies as dependencies,
)
