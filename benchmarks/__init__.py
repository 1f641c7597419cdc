"""Experiments on real data, and what they share."""
