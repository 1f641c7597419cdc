"""Curvature of batches, the noise scale, and learning rates over batch sizes.

The top eigenvalue of batch Hessians beside that of all examples and the rule
of random matrices; the linear and the square-root rule of learning rates.
"""

from benchmarks.experiments.batch_size.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
