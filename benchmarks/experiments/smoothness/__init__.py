"""Smoothness along training, with and without batch normalization.

The loss range, the change of the gradient and the effective smoothness of
Santurkar et al. (2018), of weights and of directions; and the shift of a
layer's gradient that the step of the layers before it causes.
"""

from benchmarks.experiments.smoothness.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
