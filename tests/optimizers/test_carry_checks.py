"""carry_moments says an assumption, and rejects what it would carry wrongly."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import psi_optax
from psi_optax import ScaleGroup, normalize
from psi_optax.optimizers import carry_moments

RATE = 0.01
ROWS, COLUMNS = ScaleGroup(1), ScaleGroup(0)
PARAMS = {"w": jnp.arange(1.0, 10.0).reshape(3, 3), "b": jnp.ones(3)}
GROUPS = {"w": COLUMNS, "b": None}
ADAM = optax.adam(RATE)
PSI = psi_optax.psi(ADAM, GROUPS)


def carry(old=None, new=None, params=PARAMS, groups=GROUPS, **options):
    old = ADAM.init(PARAMS) if old is None else old
    new = PSI.init(PARAMS) if new is None else new
    return carry_moments(old, new, params, groups, **options)


@pytest.mark.parametrize("make", [optax.adamax, optax.contrib.adopt])
def test_a_class_of_several_optimizers_is_said(make):
    """Their states are of one class, and their moments of other degrees."""
    old, inner = make(RATE), make(RATE)
    _, notes = carry(
        old.init(PARAMS), psi_optax.psi(inner, GROUPS).init(PARAMS)
    )
    [note] = [x for where, x in notes.items() if "ScaleByAdam" in where]
    assert "not Adamax or ADOPT" in note
    # A class of one optimizer.
    lion = optax.lion(RATE)
    new = psi_optax.psi(lion, GROUPS).init(PARAMS)
    _, notes = carry(lion.init(PARAMS), new)
    assert not any("assumed" in note for note in notes.values())


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize("make", [optax.adam, optax.adamax])
def test_the_assumption_matters(make):
    """The note is of states that are wrong if it does not hold."""
    tx = psi_optax.psi(make(RATE, eps=0.0), GROUPS)
    # Gradients of weights, and those of directions, which are r times as large.
    g = {"w": jnp.full((3, 3), 0.5), "b": jnp.ones(3)}
    _, state = make(RATE, eps=0.0).update(g, make(RATE).init(PARAMS), PARAMS)
    _, expected = tx.update(g, tx.init(PARAMS), PARAMS)
    found, _ = carry(state, tx.init(PARAMS))
    nu, right = (optax.tree.get(x, "nu")["w"] for x in (found, expected))
    # Squares of norms above 8, where Adamax has norms: else a few roundings.
    factor = np.max(np.abs(np.asarray(nu / right) - 1))
    assert factor < 1e-6 if make is optax.adam else factor > 7


@pytest.mark.parametrize("count", [3.5, np.float32(3.0)])
def test_a_count_is_a_whole_number(count):
    with pytest.raises(ValueError, match=r"count.*int"):
        carry(count=count)
    assert int(carry(count=np.int64(3))[0].count) == 3


def test_shapes_have_no_values():
    shapes = jax.eval_shape(lambda: PARAMS)
    with pytest.raises(TypeError, match=r"'w'.*\(3, 3\).*arrays"):
        carry(params=shapes)
    carry(params={**shapes, "w": PARAMS["w"]})
    with pytest.raises(TypeError, match=r"old_state.*count.*arrays"):
        carry(jax.eval_shape(ADAM.init, PARAMS))
    with pytest.raises(TypeError, match=r"new_state.*count.*arrays"):
        carry(new=jax.eval_shape(PSI.init, PARAMS))


@pytest.mark.parametrize("name", ["old", "new", "params", "count"])
def test_traced_values(name):
    given = {
        "old": ADAM.init(PARAMS),
        "new": PSI.init(PARAMS),
        "params": PARAMS,
        "count": 3,
    }[name]

    def call(x):
        return carry(**{name: x})[0].count

    with pytest.raises(TypeError, match=r"outside of jax\.jit"):
        jax.jit(call)(given)
    several = jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * 2), given)
    with pytest.raises(TypeError, match=r"jax\.vmap"):
        jax.vmap(call)(several)


def test_an_ensemble_is_carried_by_its_members():
    several = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), PARAMS)
    old, new = jax.vmap(ADAM.init)(several), jax.vmap(PSI.init)(several)
    for params in several, PARAMS:
        with pytest.raises(ValueError, match=r"count.*\(2,\).*each member"):
            carry(old, PSI.init(PARAMS), params)
        with pytest.raises(ValueError, match=r"PsiState.*\(2,\).*each member"):
            carry(ADAM.init(params), new, params)
    for i in range(2):
        member = jax.tree.map(lambda x, i=i: x[i], (old, new, several))
        assert carry(*member)[0].radius["w"].shape == (3,)


def test_radii_tell_groups_of_the_same_shape_apart():
    """Rows and columns of a square kernel, of other norms."""
    rows = psi_optax.psi(ADAM, {"w": ROWS, "b": None})
    old, new = PSI.init(PARAMS), rows.init(PARAMS)
    for groups in {"w": ROWS, "b": None}, GROUPS:
        with pytest.raises(ValueError, match=r"radius at 'w'.*axes"):
            carry(old, new, groups=groups)
    carry(old, PSI.init(PARAMS))
    # Weights that are normalized for the new run, and the wrong ones.
    with pytest.raises(ValueError, match=r"old_state.*before any normalize"):
        carry(old, PSI.init(PARAMS), normalize(PARAMS, GROUPS))
    carry(old, PSI.init(normalize(PARAMS, GROUPS)))
    # In 16 bits, and without a stored radius.
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    carry(old, PSI.init(PARAMS), half, groups=GROUPS)
    free = psi_optax.psi(ADAM, {"w": ROWS, "b": None}, radius=1.0)
    carry(old, free.init(PARAMS))


def test_containers_of_nnx():
    model = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, ADAM, wrt=nnx.Param)
    params = nnx.state(model, nnx.Param)
    groups = {"kernel": COLUMNS, "bias": None}
    tx = psi_optax.psi(ADAM, groups)
    new = nnx.Optimizer(model, tx, wrt=nnx.Param).opt_state
    for wrong in (
        optimizer,
        nnx.state(optimizer),
        nnx.to_pure_dict(nnx.state(optimizer)),
    ):
        with pytest.raises(TypeError, match=r"old_state.*opt_state"):
            carry(wrong, new, params, groups)
    state, _ = carry(optimizer.opt_state, new, params, groups)
    assert int(state.count[...]) == 0
    # Nothing to carry is no error.
    carry((), PSI.init(PARAMS), count=2)
