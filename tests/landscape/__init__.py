"""Tests of psi_optax.landscape."""
