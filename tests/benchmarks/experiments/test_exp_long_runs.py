"""The experiment with long runs: its checkpoints, values and claims."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("sklearn")

from benchmarks.experiments.long_runs import MEASUREMENT
from benchmarks.experiments.long_runs.training import (
    Runs,
    _through_a_checkpoint,
)
from benchmarks.experiments.matched import LABELS, builds
from benchmarks.harness.pages import DOCS
from benchmarks.harness.results import read

pytestmark = pytest.mark.usefixtures("optax_promotion")

POINT = 0.1, 0.005


@pytest.fixture(scope="module")
def runs():
    return Runs((8,), batch_size=32, steps=5, seeds=2)


def values(runs, restart, stretches=3, name="psi_sgd", mode="bfloat16"):
    build = builds(1.0)[name]
    run = runs.run(build, mode, POINT, stretches, restart=restart)
    return [[np.asarray(x) for x in (*seen, last)] for seen, last in run]


def test_a_filter_without_gradients_dies_by_weight_decay_and_is_counted(runs):
    def close_a_unit(carry):
        variables, state = carry
        params = variables["params"]
        norm = {**params["norm_0"]}
        # Its outputs are negative for all inputs.
        norm["bias"] = norm["bias"].at[:, 0].set(-100.0)
        return {**variables, "params": {**params, "norm_0": norm}}, state

    build = builds(1.0)["sgd_decay"]
    # With momentum 0.9 weights fall by 0.9^(1/2) a step: to 1e-9 in 400.
    strong = Runs((8,), batch_size=32, steps=400, seeds=2)
    found = strong.run(build, "float32", (0.1, 0.03), 2, restart=close_a_unit)
    alive, dead = (seen for seen, _ in found)
    assert alive.dead.tolist() == [0, 0]
    assert dead.dead.tolist() == [1, 1]
    assert np.isfinite(dead.rotation).all()


def test_a_restart_from_a_checkpoint_changes_no_bit(runs):
    alone = values(runs, lambda carry: carry)
    np.testing.assert_equal(values(runs, _through_a_checkpoint), alone)

    def forget(carry):
        # Without its momentum.
        variables, state = carry
        return variables, jax.tree.map(jnp.zeros_like, state)

    assert np.abs(values(runs, forget)[1][1] - alone[1][1]).min() > 1e-4


def test_values_are_those_of_the_groups(runs):
    """Norms of 8 filters are kept by psi_sgd and grow with SGD."""
    for name, grows in {"psi_sgd": False, "sgd": True}.items():
        found = values(runs, lambda x: x, 2, name, "float32")
        norm, deviation = found[-1][2:4]
        assert norm.shape == (2,)
        if grows:
            assert norm.min() > 1.001
            # The largest is at least the median, of all steps the last.
            assert (deviation >= norm - 1).all()
        else:
            # Of weights that are rounded to 6e-8.
            assert np.abs(norm - 1).max() < 1e-7
            assert 0 < deviation.max() < 2.4e-7


def test_the_numbers_that_are_kept_bear_out_the_claims():
    content = read(DOCS / "numbers" / "long_runs.json")
    assert MEASUREMENT.faults(content) == []
    changed = copy.deepcopy(content)
    changed["parts"]["psi_sgd/float32"]["deviation"][-1][0] = 1e-6
    # Nothing is claimed of SGD.
    changed["parts"]["sgd/float32"]["deviation"][-1][0] = 10.0
    [fault] = MEASUREMENT.faults(changed)
    assert "psi_sgd" in fault
    settings = dataclasses.asdict(MEASUREMENT.settings)
    assert len(content["parts"]) == 1 + len(LABELS) * len(settings["modes"])
