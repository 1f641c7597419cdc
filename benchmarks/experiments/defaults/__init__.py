"""Methods as documented, without tuning, on six small tasks.

The page docs/experiments/defaults.md describes the method.
"""

from benchmarks.experiments.defaults.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
