"""Best rates, their moves and rules, on losses whose optimum is known."""

import numpy as np
import pytest

from benchmarks.experiments.transfer.analysis import (
    RULES,
    Move,
    excess,
    fit,
    halves,
    judge,
    move,
)
from benchmarks.experiments.transfer.curves import (
    Curve,
    best_rate,
    curve,
    interval,
    loss_at,
    resamples,
)
from benchmarks.experiments.transfer.grids import extend, rates

X = np.arange(-6.0, 2.0)


def valley(optimum, seeds=(0.0,), depth=0.05):
    """A parabola in log2 of the rate, with an optimum for each seed."""
    centers = optimum + np.array(seeds)
    return Curve(X, 1.0 + depth * (X[:, None] - centers) ** 2)


@pytest.mark.parametrize("optimum", [-3.6, -3.0, -2.51, -1.7])
def test_the_optimum_of_a_parabola_is_found(optimum):
    # Exact but for the rounding of a least squares fit.
    assert best_rate(valley(optimum)) == pytest.approx(optimum, abs=1e-6)


def test_a_parabola_is_nearer_than_the_grid():
    """Losses rise steeply above the best rate, as where training diverges."""
    fine = np.linspace(-6, 2, 8001)

    def loss(x):
        return 0.01 * (x + 3) ** 2 + 0.02 * np.exp(1.5 * (x + 1.5))

    errors, of_grid = [], []
    for shift in np.linspace(-0.5, 0.5, 11):
        at = Curve(X, loss(X - shift)[:, None])
        optimum = fine[np.argmin(loss(fine))] + shift
        errors.append(abs(best_rate(at) - optimum))
        of_grid.append(abs(X[at.lowest] - optimum))
    assert max(errors) < 0.25
    # The control: that of the grid is off by up to half a step.
    assert max(of_grid) > 0.4


def test_failures_are_infinite_and_no_part_of_a_parabola():
    at = valley(-2.6)
    at.losses[5:] = np.nan
    assert at.failures == 3
    assert at.edge == 0
    # A parabola goes through the points below the first that failed.
    assert best_rate(at) == pytest.approx(-2.6, abs=1e-6)
    at.losses[4] = np.nan
    # Beside a rate that failed the lowest point is the best rate.
    assert best_rate(at) == -3.0
    at.losses[:] = np.nan
    assert np.isnan(best_rate(at))
    assert at.edge == -1


def test_a_seed_that_fails_makes_its_rate_fail():
    at = valley(-2.6, (0.0, 0.0))
    at.losses[3, 1] = np.nan
    assert at.means[3] == np.inf
    assert np.isfinite(at.seeds([0]).means).all()


def test_edges_are_told():
    assert [valley(x).edge for x in (-9.0, -2.0, 3.0)] == [-1, 0, 1]


def test_losses_between_the_points_are_those_of_a_parabola():
    at = valley(-2.6)
    for x in (-5.4, -2.5, 0.9):
        expected = 1.0 + 0.05 * (x + 2.6) ** 2
        assert loss_at(at, x) == pytest.approx(expected, abs=1e-9)
    assert loss_at(at, -3.0) == at.means[3]
    assert np.isnan(loss_at(at, -6.1))
    at.losses[6] = np.nan
    assert loss_at(at, -0.2) == np.inf
    # The third point failed: a line through the other two, on points of X.
    line = (at.means[4] + at.means[5]) / 2
    at.losses[3] = np.nan
    assert loss_at(at, -1.5) == pytest.approx(line, abs=1e-9)


def test_parts_join_to_a_curve():
    first = {"rates": rates(-1, 2), "test": [[0.2, 0.4], [0.1, None]]}
    second = {"rates": rates(-3, 2), "test": [[0.5, 0.5], [0.4, 0.4]]}
    at = curve([first, second], "test")
    assert at.x.tolist() == [-3, -2, -1, 0]
    assert at.means.tolist() == pytest.approx([0.5, 0.4, 0.3, np.inf])


def test_a_bootstrap_covers_what_seeds_have():
    base, at = valley(-3.0, (0.0, 0.0, 0.0)), valley(-2.0, (-0.3, 0.0, 0.3))
    moved = move(base, at, 4)
    assert moved.octaves == pytest.approx(1.0, abs=1e-6)
    # Of three seeds, all of which may be the first or the last.
    low, high = moved.interval
    assert 0.7 <= low < 0.85 < 1.15 < high <= 1.3
    # Optima that the seeds of both share cancel: the bootstrap is of pairs.
    paired = move(at, at._replace(x=X + 1), 4)
    assert paired.interval == pytest.approx((1.0, 1.0), abs=1e-6)
    # One seed has no interval, and is compared with the same one of the base.
    alone = move(valley(-3.0, (0.0, 5.0)), valley(-2.0), 4)
    assert alone.interval is None
    assert alone.octaves == pytest.approx(1.0, abs=1e-6)


def test_an_interval_needs_more_than_one_finite_value():
    assert interval([1.0]) is None
    assert interval([1.0, np.nan]) is None
    assert interval([1.0, 2.0]) == pytest.approx((1.025, 1.975))
    assert sorted(set(resamples(2))) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_what_keeping_a_rate_costs():
    base, at = valley(-3.0), valley(-1.0)
    assert move(base, at, 8).kept == pytest.approx(0.05 * 2**2, abs=1e-6)
    assert move(at, at, 8).kept == pytest.approx(0.0, abs=1e-9)
    assert np.isnan(excess(at, 7.0))


def row(power, factors=(2, 4, 8), depth=0.05, bend=0.0):
    """Moves by a power of the factor, but for the last one."""
    base, found = valley(-2.0, depth=depth), []
    for factor in factors:
        miss = bend * (factor == factors[-1])
        optimum = -2.0 + power * np.log2(factor) + miss
        found.append(move(base, valley(optimum, depth=depth), factor))
    return found


@pytest.mark.parametrize("power", [-1.0, -0.5, 0.0, 0.5])
def test_a_rule_that_is_there_is_found_and_holds(power):
    verdict = judge([row(power)], [0.01])
    assert RULES[verdict.rule] == power
    assert verdict.holds
    # Rounding of least squares.
    assert verdict.error < 1e-6
    assert verdict.tested == 1


def test_a_rule_that_ends_at_the_tested_half_does_not_hold():
    bent = judge([row(-0.5, bend=0.8)], [1.0])
    assert bent.rule == "1 / √factor"
    assert bent.error == pytest.approx(0.8, abs=1e-6)
    assert not bent.holds
    # Small errors do not suffice: the loss has to be within the spread.
    slight = [row(-0.5, bend=0.4)]
    assert judge(slight, [0.009]).holds
    assert not judge(slight, [0.007]).holds
    # 0.05 times the square of 0.4 octaves.
    assert judge(slight, [0.007]).excess == pytest.approx(0.008, abs=1e-6)
    # An unknown spread, of one seed everywhere, is no evidence.
    assert not judge(slight, [np.nan]).holds


def test_rules_are_fitted_near_the_base():
    near, far = halves(row(-0.5))
    assert [x.factor for x in near] == [2, 4]
    assert [x.factor for x in far] == [8]
    near, far = halves(row(0.0, (0.0625, 16)))
    assert [x.factor for x in near] == [0.0625]
    assert [x.factor for x in far] == [16]
    assert judge([row(0.5, (4,))], [0.01]) is None


def test_several_problems_are_judged_together():
    both = judge([row(-0.5), row(-0.5, bend=0.9)], [0.01, 0.01])
    assert both.tested == 2
    assert both.error == pytest.approx(0.45, abs=1e-6)
    # The median error is small, but one of the losses is not.
    assert not both.holds


def test_an_unknown_best_rate_has_no_verdict():
    moves = row(0.0)
    moves[0] = moves[0]._replace(octaves=float("nan"))
    assert judge([moves], [0.01]) is None


def test_of_rules_that_fit_alike_the_nearest_to_constant_is_taken():
    moved = Move(4, 0.5, None, 0.0, False, 0.0, valley(0.0))
    assert fit([moved]) == "constant"
    assert fit([moved._replace(octaves=0.6)]) == "√factor"


def measured(optimum):
    """A function that measures a part, and the parts that it was asked for."""
    asked = []

    def measure(index, grid):
        asked.append((index, [np.log2(x).item() for x in grid]))
        loss = [[abs(np.log2(x).item() - optimum)] for x in grid]
        return {"rates": grid, "validation": loss}

    return measure, asked


SIZES = {"count": 4, "more": 2, "extensions": 3}


@pytest.mark.parametrize(
    ("optimum", "parts"),
    [
        (1.2, [[0, 1, 2, 3]]),
        (4.2, [[0, 1, 2, 3], [4, 5]]),
        (-2.8, [[0, 1, 2, 3], [-2, -1], [-4, -3]]),
        (99, [[0, 1, 2, 3], [4, 5], [6, 7], [8, 9]]),
    ],
)
def test_a_grid_is_extended_until_the_best_rate_is_inside(optimum, parts):
    measure, asked = measured(optimum)
    found = extend(measure, 0, **SIZES)
    assert asked == list(enumerate(parts))
    assert len(found) == len(parts)
    inside = curve(found, "validation").edge == 0
    assert inside == (optimum < 9)
