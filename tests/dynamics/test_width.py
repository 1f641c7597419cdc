"""The rule of the width, on the measured best rates that it was found by."""

import json
import pathlib

import numpy as np
import optax
import pytest

from benchmarks.experiments.transfer.choices import moves
from psi_optax.dynamics import angle_at_width

NUMBERS = pathlib.Path(__file__).parents[2] / "docs/numbers/transfer.json"


def constant(learning_rate, width):
    """Return the angle as it is."""
    del width
    return learning_rate


@pytest.fixture(scope="module")
def measured():
    content = json.loads(NUMBERS.read_text(encoding="utf-8"))
    widths = content["settings"]["widths"]
    return [
        moves(content, problem, name, "width", widths)
        for problem in ("mlp", "language")
        for name in ("rotational", "adamh")
    ]


def errors(rule, measured):
    """Return octaves between the rule and the best angle of each width."""
    return np.array(
        [
            [
                abs(np.log2(rule(2.0**x.base, x.factor)) - x.base - x.octaves)
                for x in row
            ]
            for row in measured
        ]
    )


def test_rule_is_within_half_an_octave_of_measured_best_angles(measured):
    assert errors(angle_at_width, measured).max() <= 0.5
    assert (errors(constant, measured)[:, -1] > 1.0).all()


def test_schedules_and_numbers_agree():
    schedule = angle_at_width(optax.linear_schedule(0.02, 0.0, 4), 9)
    assert np.isclose(schedule(0), angle_at_width(0.02, 9), rtol=1e-6)
    assert schedule(4) == 0.0
    assert angle_at_width(0.02, 0.25) == 0.04


@pytest.mark.parametrize("width", [0, -2.0])
def test_width_that_is_not_positive_is_an_error(width):
    with pytest.raises(ValueError, match="width"):
        angle_at_width(0.01, width)
