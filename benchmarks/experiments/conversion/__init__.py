"""Converted learning rates, in training: do groups rotate as asked?

SGD, Adam, Lion and Muon train a BN ResNet and a QK-norm Transformer for 200
steps. `convert_learning_rate` makes a rate for `psi`, an angle for `rotational`
and the rotation to expect of each. The exit status is 1 if a mean rotation is
off by more than 10 %.
"""

from benchmarks.experiments.conversion.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
