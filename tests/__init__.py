"""The tests of psi_optax."""
