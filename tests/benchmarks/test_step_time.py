"""The timing harness on a network of two leaves."""

import jax.numpy as jnp
import pytest

from benchmarks import step_time


@pytest.mark.usefixtures("optax_promotion")
def test_every_case_compiles_in_place_and_is_held_to_a_baseline():
    params = {"stem/kernel": jnp.ones((4, 3)), "head/bias": jnp.ones(2)}
    txs = step_time.optimizers(params)
    cases = {
        name: step_time.compile_case(tx, params, params)
        for name, tx in txs.items()
    }
    seconds = step_time.time_in_turns(cases, params, turns=2, steps=1)
    rows = step_time.report(cases, seconds)
    assert {row["optimizer"] for row in rows} == set(txs)
    for row in rows:
        assert row["baseline"] in txs
        assert row["ratio"] > 0
        low, high = row["quartiles"]
        assert low <= row["ratio"] <= high
    lines = step_time.table(rows).splitlines()
    assert len(lines) == 2 + len(rows)
    assert len({line.count("|") for line in lines}) == 1
    state = {row["optimizer"]: row["state"] for row in rows}
    # One copy of the weights, and two with a counter.
    assert state["optax.sgd(momentum)"] == 1
    assert 2 < state["optax.adam"] < 3
    own = [row for row in rows if row["optimizer"] == row["baseline"]]
    assert [row["ratio"] for row in own] == [1, 1]
    assert float(params["stem/kernel"][0, 0]) == 1  # Not the caller's own.
