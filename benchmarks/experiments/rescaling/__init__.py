"""Does the scale of the initial weights matter?

Batch normalization makes the network's output independent of the norms of the
filters, but not the optimizer's steps. A batch-normalized network is trained
from initial filters that are multiplied by 0.01 to 100. Each optimizer was
tuned where nothing is multiplied, on a validation part of the training data.
"""

from benchmarks.experiments.rescaling.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
