"""The experiment on converted learning rates: what it claims."""

import copy

from benchmarks.experiments.conversion import MEASUREMENT
from benchmarks.harness.pages import DOCS
from benchmarks.harness.results import read


def test_the_numbers_that_are_kept_bear_out_the_claims():
    content = read(DOCS / "numbers" / "conversion.json")
    assert len(content["parts"]) == 16
    assert MEASUREMENT.faults(content) == []
    for kind in ("psi", "returned", "rotational", "own"):
        wrong = copy.deepcopy(content)
        wrong["parts"]["ResNet, lion"][kind] *= 1.25
        [fault] = MEASUREMENT.faults(wrong)
        assert fault.startswith(f"ResNet, lion, {kind}")
