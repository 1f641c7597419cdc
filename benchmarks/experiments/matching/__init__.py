"""A matched learning rate in place of weight decay.

SGD with tuned weight decay trains a batch-normalized network, at a rate that is
held for one half of the steps and decays in the other. Then the decay of the
filters is dropped, and `matching_learning_rate` makes their rate of the same
schedule. The exit status is 1 if rotations or accuracies do not match.
"""

from benchmarks.experiments.matching.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
