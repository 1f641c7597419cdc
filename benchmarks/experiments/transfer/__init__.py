"""Transfer of learning rates over width, batch, depth, length and scale.

The page docs/experiments/transfer.md describes the method.
"""

from benchmarks.experiments.transfer.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
