"""Norms and rotations that weight decay leads to, predicted and measured.

SGD and AdamW train a network at constant learning rates and decays; methods
that keep norms train at the rotation of the equilibrium from the first step on.
"""

from benchmarks.experiments.equilibrium.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
