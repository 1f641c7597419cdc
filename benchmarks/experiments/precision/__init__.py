"""Steps of psi in float32, bfloat16 and float16, and drifts of norms.

Weights turn along a fixed great circle, by one step and by a thousand; each
gradient is rounded to their dtype. Norms are followed for a million steps.
"""

from benchmarks.experiments.precision.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
