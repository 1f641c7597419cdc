"""Rules for primitives, one file for each kind.

Importing this package registers all of them.
"""

from psi_optax.invariance.analysis.rules import (
    collectives as collectives,
    contractions as contractions,
    decompositions as decompositions,
    elementwise as elementwise,
    indexing as indexing,
    products as products,
    reductions as reductions,
    refs as refs,
    selections as selections,
    shapes as shapes,
    slices as slices,
    sums as sums,
)
from psi_optax.invariance.analysis.rules.table import (
    Call as Call,
    apply as apply,
)
from psi_optax.invariance.analysis.values import (
    combined_dependencies as combined_dependencies,
)
