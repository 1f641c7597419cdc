"""Paired comparisons of methods over seeds, corrected for their number."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

LEVEL = 0.05


def compare(values: np.ndarray, baseline: np.ndarray) -> Any:
    """Run a paired t-test along the last axis, seeds, against a baseline."""
    with warnings.catch_warnings():
        # Differences may be the same for all seeds, as the baseline's are.
        warnings.simplefilter("ignore", RuntimeWarning)
        return stats.ttest_rel(
            values, np.broadcast_to(baseline, values.shape), axis=-1
        )


def marks(found: Any, tested: ArrayLike = True) -> np.ndarray:
    """Mark significant differences: ▲ above the baseline, ▼ below it.

    Args:
        found: the result of `compare`.
        tested: True for the tests that are counted, to broadcast to them.

    Returns:
        Strings, "" where there is no significant difference.
    """
    tested = np.broadcast_to(tested, found.pvalue.shape)
    p = np.ones(found.pvalue.shape)
    # There is no p-value where all differences are 0.
    p[tested] = holm(np.nan_to_num(found.pvalue[tested], nan=1.0))
    return np.where(p < LEVEL, np.where(found.statistic > 0, "▲", "▼"), "")


def holm(p: ArrayLike) -> np.ndarray:
    """Correct p-values for their number, by Holm's step-down method."""
    flat = np.ravel(p)
    steps = np.sort(flat) * np.arange(flat.size, 0, -1)
    corrected = np.maximum.accumulate(steps).clip(max=1)
    return corrected[np.argsort(np.argsort(flat))].reshape(np.shape(p))
