"""How exactly learning rate, weight decay and initial scale have to be chosen.

A batch-normalized network is trained by several optimizers at all points of a
grid of rates, decays and scales. The page docs/experiments/sensitivity.md
describes the method.
"""

from benchmarks.experiments.sensitivity.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
