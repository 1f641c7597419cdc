"""The Flax networks."""
