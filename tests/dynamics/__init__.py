"""Tests of psi_optax.diagnostics."""
