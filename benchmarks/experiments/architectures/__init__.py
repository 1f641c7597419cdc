"""The share of scale-invariant weights, by architecture.

The page docs/architectures.md shows the results.
"""

from benchmarks.experiments.architectures.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
