"""The pictures of docs/concepts.md: first steps from weights of several norms.

Every arrow and every angle is that of an optimizer's step.
"""

from benchmarks.experiments.concepts.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
