"""SAM, its relatives, weight noise and Entropy-SGD, before SGD and psi.

The page docs/experiments/perturbations.md describes the method.
"""

from benchmarks.experiments.perturbations.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
