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
    own = [row for row in rows if row["optimizer"] == row["baseline"]]
    assert [row["ratio"] for row in own] == [1, 1]
    assert float(params["stem/kernel"][0, 0]) == 1  # Not the caller's own.
