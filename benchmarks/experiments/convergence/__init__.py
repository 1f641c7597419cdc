"""Full-batch descent, beside the bounds of the PSI paper's theorems 2 and 4.

A batch-normalized network is trained in double precision, on the PSI manifold
(PSI-GD, theorem 2) and off it (GD, theorem 4). The theorems ask for constants
of smoothness, which are measured on the path. Descent is repeated at multiples
of their learning rates, and at the same rates from other initial scales.
"""

from benchmarks.experiments.convergence.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
