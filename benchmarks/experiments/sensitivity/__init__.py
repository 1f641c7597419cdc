"""Accuracy at all points of a grid of learning rates, decays and scales.

The page docs/experiments/sensitivity.md describes the method.
"""

from benchmarks.experiments.sensitivity.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
