"""Tests of psi_optax.reparametrize."""
