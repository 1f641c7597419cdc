"""Normalizations of weights, of a batch and none, before SGD and psi_sgd.

The page docs/experiments/normalizations.md describes the method.
"""

from benchmarks.experiments.normalizations.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
