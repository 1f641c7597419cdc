"""Paired comparisons of methods over seeds."""

import numpy as np

from benchmarks.experiments.paired import compare, holm, marks


def test_holms_correction():
    # By hand: 4 * 0.01, 3 * 0.02, 2 * 0.02, of which the largest so far, 1.
    p = [[0.02, 0.01], [0.9, 0.025]]
    np.testing.assert_allclose(holm(p), [[0.06, 0.04], [0.9, 0.06]])
    assert holm([0.6, 0.7]).max() == 1
    # Under no effect at all, 20 tests find something in 5 % of all cases, and
    # uncorrected ones in 1 - 0.95^20 = 64 %. Of 2000 cases: 0.5 %, five times.
    cases = np.random.RandomState(0).uniform(size=(2000, 20))
    found = np.mean([holm(case).min() < 0.05 for case in cases])
    assert abs(found - 0.05) < 0.025
    assert np.mean(cases.min(1) < 0.05) > 0.6


def test_only_tests_that_are_counted_are_marked_and_correct_the_others():
    # Of four seeds each; p is 0.042, and 0.083 as one of two.
    values = np.array([[1.0, 2.0, 4.0, 5.0], [1.0, 2.0, 4.0, 5.0]])
    found = compare(values, np.zeros(1))
    assert 0.025 < found.pvalue[0] < 0.05
    assert marks(found).tolist() == ["", ""]
    assert marks(found, [False, True]).tolist() == ["", "▲"]
    below = compare(-values, np.zeros(1))
    assert marks(below, [True, False]).tolist() == ["▼", ""]
