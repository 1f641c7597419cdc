"""Averages of gradients or weights over learners, by learning rate.

The page docs/experiments/averaging.md describes the method.
"""

from benchmarks.experiments.averaging.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
