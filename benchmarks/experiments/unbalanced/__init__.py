"""Training from one layer of long weights and one of short weights.

After figure 1 of the PSI paper: two linear maps, each with a batch
normalization behind it. The first kernel is multiplied by 1e4 and the second by
1e-4. All methods are tuned where nothing is multiplied, and then used as they
are; some are tuned once more for the unbalanced weights.
"""

from benchmarks.experiments.unbalanced.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
