"""Full-batch descent, beside the bounds of the PSI paper's theorems 2 and 4.

A network is trained in double precision, on the PSI manifold (PSI-GD) and off
it (GD): at the theorems' learning rates, at multiples, and from other scales.
"""

from benchmarks.experiments.convergence.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
