"""Tables and norms of models are those of the trees that optimizers get."""

import equinox as eqx
import jax
import pytest
from flax import nnx

from psi_optax import ScaleGroup, describe_groups, group_norms


class Network(nnx.Module):
    def __init__(self):
        self.layer = nnx.Linear(3, 2, use_bias=False, rngs=nnx.Rngs(0))
        self.norm = nnx.BatchNorm(2, use_scale=False, rngs=nnx.Rngs(0))


def networks():
    model = Network()
    groups = {"layer/kernel": ScaleGroup(0), "norm/bias": None}
    yield model, nnx.state(model, nnx.Param), groups
    layer = eqx.nn.Linear(3, 2, key=jax.random.key(0))
    weights = eqx.filter(layer, eqx.is_inexact_array)
    yield layer, weights, {"weight": ScaleGroup(1), "bias": None}
    params = weights.weight
    variables = {"params": {"w": params}, "batch_stats": {"mean": params}}
    yield variables, variables["params"], ScaleGroup(1)


@pytest.mark.parametrize("index", range(3))
def test_a_model_and_its_weights(index):
    model, weights, groups = list(networks())[index]
    assert describe_groups(model, groups) == describe_groups(weights, groups)
    norms = [group_norms(x, groups) for x in (model, weights)]
    assert jax.tree.structure(norms[0]) == jax.tree.structure(norms[1])
    for x, y in zip(*map(jax.tree.leaves, norms), strict=True):
        assert (x == y).all()
        assert (x > 0).all()


def test_a_branch_that_is_called_params_is_kept():
    w = jax.numpy.ones((2, 3))
    tree = {"params": {"w": w}, "head": {"w": 2 * w}}
    norms = group_norms(tree, ScaleGroup((0, 1)))
    assert norms["head"]["w"] == 2 * norms["params"]["w"]
