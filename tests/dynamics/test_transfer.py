"""Rules of transfer are those that held in the recorded experiment."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.experiments.transfer.analysis import RULES as POWERS
from benchmarks.experiments.transfer.choices import moves
from benchmarks.experiments.transfer.points import FACTORS
from benchmarks.experiments.transfer.report import verdict_of
from psi_optax.dynamics import transfer, transfer_learning_rate

NUMBERS = pathlib.Path(__file__).parents[2] / "docs/numbers/transfer.json"
OPTIMIZERS = ("psi_sgd", "psi_adam", "rotational", "adamh", "muonh")
# The last two of the experiment have one seed for all methods.
SEVERAL_SEEDS = ("width", "batch", "examples")


@pytest.fixture(scope="module")
def numbers():
    return json.loads(NUMBERS.read_text(encoding="utf-8"))


def test_rules_are_those_that_held(numbers):
    found = {
        FACTORS[factor]: {
            name: POWERS[verdict.rule]
            for name in OPTIMIZERS
            if (
                verdict := verdict_of(
                    numbers, ["mlp", "language"], name, factor
                )
            ).holds
        }
        for factor in SEVERAL_SEEDS
    }
    assert found == transfer.RULES


def errors(numbers, name, at_width):
    """Return octaves between a rule and the best rates of all widths."""
    widths = numbers["settings"]["widths"]
    return [
        abs(np.log2(at_width(2.0**x.base, x.factor)) - x.base - x.octaves)
        for problem in ("mlp", "language")
        for x in moves(numbers, problem, name, "width", widths)
    ]


@pytest.mark.parametrize("name", ["rotational", "adamh"])
def test_rule_of_width_is_within_half_an_octave_of_each_best_angle(
    numbers, name
):
    def rule(rate, width):
        return transfer_learning_rate(rate, name, width=width)

    assert max(errors(numbers, name, rule)) <= 0.5
    assert max(errors(numbers, name, lambda rate, width: rate)) > 1


def test_schedules_and_numbers_agree():
    falling = optax.linear_schedule(0.02, 0.0, 4)
    schedule = transfer_learning_rate(falling, "adamh", width=9)
    number = transfer_learning_rate(0.02, "adamh", width=9)
    assert np.isclose(schedule(0), number, rtol=1e-6)
    assert schedule(4) == 0.0


def test_factors_multiply():
    both = transfer_learning_rate(
        0.01, "muonh", width=4, batch=4, equal="examples"
    )
    assert both == 0.04
    assert transfer_learning_rate(0.01, "muonh", batch=4) == 0.02


def test_factors_of_one_need_no_rule():
    assert transfer_learning_rate(0.3, "psi_sgd") == 0.3


@pytest.mark.parametrize(
    ("optimizer", "options", "match"),
    [
        ("psi_sgd", {"width": 2}, "no power .*'rotational'"),
        ("adamh", {"batch": 4}, "no power .*a rule for 'muonh'"),
        ("adamh", {"width": 0}, "width"),
        ("muonh", {"batch": -1.0}, "batch"),
        ("muonh", {"equal": "epochs"}, "choose one of 'steps'"),
        ("adam", {}, "choose one of 'psi_sgd'"),
    ],
)
def test_input_without_a_rule_is_an_error(optimizer, options, match):
    with pytest.raises(ValueError, match=match):
        transfer_learning_rate(0.01, optimizer, **options)


def test_factor_keeps_the_dtype_of_the_learning_rate():
    rate = jnp.bfloat16(0.01)
    for width in (4, np.float64(4), jnp.float32(4)):
        assert transfer_learning_rate(rate, "adamh", width=width).dtype == (
            jnp.bfloat16
        )
        schedule = transfer_learning_rate(lambda _: rate, "adamh", width=width)
        assert schedule(0).dtype == jnp.bfloat16


@pytest.mark.parametrize("name", ["width", "batch"])
def test_traced_factor_is_an_error(name):
    def rate(factor):
        return transfer_learning_rate(0.01, "muonh", **{name: factor})

    with pytest.raises(TypeError, match=f"{name} is traced"):
        jax.jit(rate)(2.0)
    rate(2.0)
