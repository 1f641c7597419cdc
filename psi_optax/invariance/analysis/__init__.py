"""The proof: follow scales through the program of a loss."""

from psi_optax.invariance.analysis.proof import analyse as analyse
