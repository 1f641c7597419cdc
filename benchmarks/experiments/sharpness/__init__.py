"""Sharpness of the plane and of the sphere: weight decay, and test errors.

Gradient descent with weight decay reduces the sharpness of the sphere. A grid
of trainings shows how sharpness and test error change with the learning rate,
the batch size, SAM, dropout and batch normalization.
"""

from benchmarks.experiments.sharpness.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
