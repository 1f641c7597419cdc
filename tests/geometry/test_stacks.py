"""Equal small leaves are stacked, and step as they do alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from psi_optax import ScaleGroup, psi_sgd
from psi_optax.diagnostics import monitor_groups
from psi_optax.geometry import stack_leaves, stacks
from psi_optax.groups import make_plan

# Eleven equal leaves are one stack, of six the leaves stay alone.
SHAPES = {
    **{f"equal_{i:02d}": (6, 4) for i in range(11)},
    **{f"few_{i}": (4, 4) for i in range(6)},
    "tied": (6, 4),
    "also_tied": (6, 4),
    "bias": (4,),
}


def group(path):
    if "equal" in path:
        return ScaleGroup(axes=0, blocks={0: 2})
    tie = "both" if "tied" in path else None
    return None if path == "bias" else ScaleGroup(axes=0, tie=tie)


GROUPS = {path: group(path) for path in SHAPES}


def draw(seed, dtype=jnp.float32):
    random = np.random.default_rng(seed)
    return {
        path: jnp.asarray(random.normal(size=shape), dtype)
        for path, shape in SHAPES.items()
    }


@pytest.fixture
def alone(monkeypatch):
    """Return a function from which on no leaf is stacked."""
    return lambda: monkeypatch.setattr(stacks, "on_one_device", lambda: False)


def test_equal_small_leaves_are_one():
    plan = make_plan(GROUPS, draw(0))
    found = stack_leaves(plan)
    shapes = {leaf.path: leaf.shape for leaf in found.plan.leaves}
    assert shapes.pop("equal_00") == (11, 6, 4)
    assert set(shapes) == {x for x in plan.paths if "equal" not in x}
    assert found.plan.group_shapes["equal_00"] == (11, 2, 4)
    assert found.plan.sizes["equal_00"] == plan.sizes["equal_00"] == 3
    assert "also_tied" in found.plan.dtypes
    assert "tied" not in found.plan.dtypes


def test_seventeen_are_two_and_large_ones_stay_alone():
    leaf = ScaleGroup(axes=0)
    for count, size, arrays in [
        (17, 8, 2),
        (24, 8, 2),
        (20, 8, 5),
        (8, 4097, 8),
    ]:
        params = {str(i): jnp.zeros((size, 1)) for i in range(count)}
        plan = make_plan(dict.fromkeys(params, leaf), params)
        assert len(stack_leaves(plan).plan.leaves) == arrays


def test_splitting_undoes_joining():
    plan = make_plan(GROUPS, draw(0))
    found, w = stack_leaves(plan), plan.select(draw(0))
    joined = found.join(w)
    assert set(joined) == set(found.plan.paths)
    for split in (found.split(joined), jax.jit(found.split)(joined)):
        assert set(split) == set(w)
        for path, x in w.items():
            np.testing.assert_array_equal(split[path], x)
    squares = found.split(found.plan.dot(joined, joined))
    for name, square in plan.dot(w, w).items():
        # Four sums of squares, in any order: a rounding each.
        np.testing.assert_allclose(squares[name], square, rtol=4 * 2**-24)


def run(tx, steps=5, dtype=jnp.float32):
    params = draw(0, dtype)
    state = tx.init(params)
    for seed in range(1, 1 + steps):
        g = jax.tree.map(lambda x: 0.1 * x, draw(seed, dtype))
        if seed == 3:  # Code other than the optimizer's doubles one leaf.
            params["equal_03"] = 2 * params["equal_03"]
        u, state = jax.jit(tx.update)(g, state, params)
        params = optax.apply_updates(params, u)
    return params, state


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_steps_are_those_of_leaves_alone(alone, momentum):
    tx = psi_sgd(0.2, GROUPS, momentum=momentum)
    stacked = run(tx)
    alone()
    single = run(tx)
    assert jax.tree.structure(stacked) == jax.tree.structure(single)
    # Sums have another order: a few roundings in each of five steps, of weights
    # of up to 3.
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5),
        stacked[0],
        single[0],
    )
    # The first of them is the largest error by far, if leaves are confused.
    first, second = stacked[0]["equal_00"], single[0]["equal_01"]
    assert not np.allclose(first, second, rtol=0.1)


def test_a_state_of_leaves_alone_goes_on_in_stacks(alone):
    tx = psi_sgd(0.2, GROUPS, momentum=0.9)
    ahead, _ = run(tx)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stacks, "on_one_device", lambda: False)
        params, state = run(tx, steps=2)
    for seed in range(3, 6):
        g = jax.tree.map(lambda x: 0.1 * x, draw(seed))
        if seed == 3:
            params["equal_03"] = 2 * params["equal_03"]
        u, state = tx.update(g, state, params)
        params = optax.apply_updates(params, u)
    for path, w in params.items():
        np.testing.assert_allclose(w, ahead[path], rtol=1e-5, atol=1e-5)


def test_a_monitor_reads_the_step_of_a_stack(alone):
    tx = optax.chain(psi_sgd(0.2, GROUPS, momentum=0.9), monitor_groups(GROUPS))
    _, (_, stacked) = run(tx)
    alone()
    _, (_, single) = run(tx)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
        stacked,
        single,
    )


def test_a_bad_gradient_harms_its_own_group_alone():
    tx = psi_sgd(0.2, GROUPS, momentum=0.9)
    params = draw(0)
    g = draw(1)
    g["equal_05"] = g["equal_05"].at[0, 0].set(jnp.nan)
    u, _ = tx.update(g, tx.init(params), params)
    bad = {path for path, x in u.items() if not np.isfinite(x).all()}
    assert bad == {"equal_05"}
    # Half of the first column, a block of three rows.
    assert np.isnan(u["equal_05"]).sum() == 3
