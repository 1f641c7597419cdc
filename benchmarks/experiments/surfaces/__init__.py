"""The loss around a solution and between solutions, and rescaled filters.

Surfaces along random directions of weights, of filters (Li et al., 2018) and of
angles; the straight line and the geodesic between two solutions.
"""

from benchmarks.experiments.surfaces.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
