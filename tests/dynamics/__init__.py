"""Tests of psi_optax.dynamics."""
