"""The optimizer's share of a training step."""

import jax
import jax.numpy as jnp
import pytest

import psi_optax
from benchmarks.speed import training_share
from benchmarks.speed.step_time.cases import ADAM, SGD, make
from benchmarks.speed.training_share import ALONE, NETWORKS, PASSES

pytestmark = pytest.mark.usefixtures("optax_promotion")


def test_shares_of_times_that_are_known():
    psi = "psi_sgd(momentum)"
    plain, ours = training_share.rows(
        {
            PASSES: [3.0, 6.0],
            SGD: [4.0, 8.0],
            psi: [6.0, 12.0],
            ALONE(SGD): [0.5, 1.0],
            ALONE(psi): [3.0, 3.0],
        }
    )
    # 1 - 3/4 in both turns, though the second was slower.
    assert plain["share"] == 0.25
    assert plain["share_quartiles"] == [0.25, 0.25]
    assert (plain["alone"], plain["ratio"]) == (0.125, 1)
    # The mean of 3/6 and 3/12.
    assert (ours["share"], ours["alone"]) == (0.5, 0.375)
    assert ours["ratio"] == 1.5
    # A share within the spread of the times is not hidden.
    seconds = {PASSES: [4.0], SGD: [2.0], ALONE(SGD): [1.0]}
    assert training_share.rows(seconds)[0]["share"] == -1


# Three layers of 9 * (8 + 8 * 16 + 16 * 32) weights, 2 * 56 of their norms and
# 330 of the head; one more than three stages of three blocks of two.
@pytest.mark.parametrize(
    ("name", "kernels", "weights"),
    [("cnn", 3, 6_274), ("resnet20", 19, 269_722)],
)
def test_the_filters_behind_a_norm_are_grouped(name, kernels, weights):
    network = NETWORKS[name]
    images = jax.ShapeDtypeStruct((1, *network.image), jnp.float32)
    params = jax.eval_shape(
        lambda x: network.model.init(jax.random.key(0), x, train=False), images
    )["params"]
    groups = psi_optax.output_channels(params, where=network.grouped)
    filters = jax.tree.map(lambda leaf: leaf.ndim == 4, params)
    assert filters == jax.tree.map(
        lambda group: group is not None, groups, is_leaf=lambda x: x is None
    )
    assert sum(jax.tree.leaves(filters)) == kernels
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == weights


def test_steps_train_and_passes_do_not():
    network = NETWORKS["small"]
    variables, batch = training_share.draw(network, 4)
    tx = make(ADAM, variables["params"], network.grouped)
    before = variables["params"]["hidden_0"]["kernel"] + 0
    for chosen, moves in ((tx, True), (None, False)):
        case = training_share.build(network, variables, chosen)
        step = jax.jit(case.step, donate_argnums=(0, 1))
        params, (rest, _) = step(case.params, case.state, batch)
        same = params["hidden_0"]["kernel"] == before
        assert bool(same.all()) != moves
        # Running statistics change with and without an optimizer.
        assert (rest["batch_stats"]["norm_0"]["mean"] != 0).all()
    # Copies were donated.
    assert (variables["params"]["hidden_0"]["kernel"] == before).all()
