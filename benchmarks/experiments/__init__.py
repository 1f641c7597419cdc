"""Experiments on real data: each is one command, `python -m` and its name."""
