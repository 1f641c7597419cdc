"""Recipes whose learning rate is an angle need `ordinary` for the rest."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import psi_optax
from psi_optax import ScaleGroup, adamh, hyperball, muonh, rotational
from tests.optimizers.test_warnings import Report

pytestmark = pytest.mark.usefixtures("optax_promotion")

MOMENTUM = optax.trace(0.9)
RECIPES = {
    "rotational": lambda groups, **kw: rotational(0.1, MOMENTUM, groups, **kw),
    "hyperball": lambda groups, **kw: hyperball(0.1, MOMENTUM, groups, **kw),
    "raw hyperball": lambda groups, **kw: hyperball(
        0.1, MOMENTUM, groups, equivariant=False, **kw
    ),
    "adamh": lambda groups, **kw: adamh(0.1, groups, **kw),
    "muonh": lambda groups, **kw: muonh(0.1, groups, **kw),
}
each_recipe = pytest.mark.parametrize("make", RECIPES.values(), ids=RECIPES)

COLUMN = ScaleGroup(axes=0)
PARAMS = {
    "w": jnp.ones((3, 2)),
    "head": {"bias": jnp.ones(2)},
    "count": jnp.ones(2, int),
}
GROUPS = {"w": COLUMN, "head": None, "count": None}
NEEDED = r"'head/bias' of shape \(2,\).*ordinary=optax.adamw"


@each_recipe
def test_ordinary_parameters_need_an_optimizer(make):
    with pytest.raises(ValueError, match=NEEDED) as caught:
        make(GROUPS).init(PARAMS)
    assert "'w'" not in str(caught.value)
    assert "'count'" not in str(caught.value)
    for groups in None, dict.fromkeys(PARAMS), Report():
        with pytest.raises(ValueError, match=r"'w' of.*ordinary=") as caught:
            make(groups).init(PARAMS)
        reason = Report.main_reason in str(caught.value)
        assert reason == isinstance(groups, Report)


@each_recipe
def test_parameters_that_cannot_be_updated_need_none(make):
    tx = make(GROUPS)
    for hidden in None, optax.MaskedNode(), jnp.ones(2, int):
        tx.init({**PARAMS, "head": hidden})
    tx.init({})
    state = make(GROUPS, ordinary=optax.sgd(0.1)).init(PARAMS)
    optax.tree.map_params(
        make(GROUPS, ordinary=optax.sgd(0.1)), lambda x: x, state
    )


MASK = {"w": True, "head": False, "count": True}


def test_a_mask_or_a_partition_hides_ordinary_parameters():
    tx = rotational(0.1, MOMENTUM, GROUPS)
    parts = {True: tx, False: optax.sgd(0.1)}
    for around in optax.masked(tx, MASK), optax.partition(parts, MASK):
        around.init(PARAMS)
    inverse = jax.tree.map(lambda x: not x, MASK)
    with pytest.raises(ValueError, match=NEEDED):
        optax.masked(tx, inverse).init(PARAMS)
    with pytest.raises(ValueError, match=NEEDED):
        optax.partition(parts, inverse).init(PARAMS)


def test_injected_traced_and_wrapped():
    inject = optax.inject_hyperparams(adamh)
    params = {k: x for k, x in PARAMS.items() if k != "count"}
    groups = {"w": COLUMN, "head": None}
    shapes = jax.eval_shape(lambda: params)
    for init in [
        inject(0.1, groups).init,
        jax.jit(adamh(0.1, groups).init),
        optax.MultiSteps(adamh(0.1, groups), 2).init,
    ]:
        with pytest.raises(ValueError, match=NEEDED):
            init(params)
    with pytest.raises(ValueError, match=NEEDED):
        adamh(0.1, groups).init(shapes)
    tx = inject(0.1, groups, ordinary=optax.sgd(0.5))
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_array_equal(updates["head"]["bias"], -0.5)


def test_an_optimizer_of_nnx():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    groups = psi_optax.groups_from_paths({"kernel": COLUMN})
    with pytest.raises(ValueError, match="'bias'.*ordinary="):
        nnx.Optimizer(model, muonh(0.1, groups), wrt=nnx.Param)
    nnx.Optimizer(
        model, muonh(0.1, groups, ordinary=optax.sgd(0.1)), wrt=nnx.Param
    )
    model = nnx.Linear(3, 2, use_bias=False, rngs=nnx.Rngs(0))
    nnx.Optimizer(model, muonh(0.1, groups), wrt=nnx.Param)


@each_recipe
def test_ordinary_parameters_are_frozen_by_set_to_zero(make):
    params = {k: x for k, x in PARAMS.items() if k != "count"}
    groups = {"w": COLUMN, "head": None}
    tx = make(groups, ordinary=optax.set_to_zero())
    gradient = {"w": jnp.eye(3, 2) - 0.1, "head": {"bias": jnp.ones(2)}}
    updates, _ = tx.update(gradient, tx.init(params), params)
    assert not jnp.any(updates["head"]["bias"])
    assert jnp.any(updates["w"])
