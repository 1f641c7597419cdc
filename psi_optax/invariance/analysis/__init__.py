"""The proof: follow scales through the program of a loss."""

from psi_optax.invariance.analysis.proof import Verdict as Verdict
from psi_optax.invariance.analysis.proof import analyse as analyse
from psi_optax.invariance.analysis.proof import (
    analyse_program as analyse_program,
)
