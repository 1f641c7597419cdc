"""Test accuracy from initial filters that are multiplied by 0.01 to 100.

Batch normalization makes the network's output independent of these factors, but
not the optimizer's steps. Each optimizer was tuned where nothing is multiplied.
"""

from benchmarks.experiments.rescaling.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
