"""Norms, rotations and losses of long runs, in float32 and bfloat16.

The page docs/experiments/long-runs.md describes the method.
"""

from benchmarks.experiments.long_runs.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
