"""Accuracy of networks that tuned optimizers trained, compared with SGD.

Labels are right, or a share of them is wrong. Paired t-tests are over seeds.
"""

from benchmarks.experiments.accuracy.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
