"""Top eigenvalues of training losses, beside the thresholds of stability.

A tanh network with batch normalization is trained in full batches by gradient
descent, on the PSI manifold and off it, with and without momentum.
"""

from benchmarks.experiments.edge.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
