"""Training from one layer of long weights and one of short weights.

After figure 1 of the PSI paper: a network of two linear maps, each before a
batch normalization. Methods are tuned where no kernel is multiplied.
"""

from benchmarks.experiments.unbalanced.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
