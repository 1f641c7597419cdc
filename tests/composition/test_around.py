"""Wrappers that keep weights of their own: around psi, and inside of it.

A retraction moves weights otherwise than the optimizer inside says, and what an
optimizer does with the updates of psi may be no retraction any more. Which of
optax's wrappers are right where, is measured here.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from psi_optax import ScaleGroup, psi, psi_sgd
from tests.composition.runs import (
    COLUMNS,
    STEPS,
    by_hand,
    gradient,
    lengths,
    run,
    scales_exactly,
    uniform,
)

pytestmark = pytest.mark.usefixtures("optax_promotion")
GROUP = ScaleGroup(axes=0)
# 60 steps of a few roundings each, 1e-16 of weights up to 4, grown a little.
CLOSE = {"rtol": 0, "atol": 1e-12}


# lookahead.

PAIRS = {
    "read": lambda params: params.fast,
    "wrap": optax.LookaheadParams.init_synced,
}


def lookahead(radius="init"):
    return optax.lookahead(psi_sgd(0.05, GROUP, radius=radius), 5, 0.5)


@pytest.mark.usefixtures("x64")
def test_lookahead_around_psi():
    fast = slow = COLUMNS.params
    radius = np.linalg.norm(fast, axis=0)
    for time, batch in enumerate(COLUMNS.batches):
        r = np.linalg.norm(fast, axis=0)
        fast = by_hand(fast, -0.05 * r * gradient(fast, batch)) * radius / r
        if time % 5 == 4:
            slow = fast = slow + 0.5 * (fast - slow)
    history = run(lookahead(), **PAIRS)
    np.testing.assert_allclose(history[-1][0].fast, fast, **CLOSE)
    np.testing.assert_allclose(history[-1][0].slow, slow, **CLOSE)
    # Between two points of the sphere, where it stays for one step.
    inside = lengths(history[4][0].fast)
    assert (inside < 0.9995).all()
    for params, _ in history[5:9]:
        np.testing.assert_allclose(lengths(params.fast), 1, rtol=1e-14)


@pytest.mark.usefixtures("x64")
def test_lookahead_shrinks_what_has_no_stored_radius():
    (params, _) = run(lookahead(radius=None), **PAIRS)[-1]
    assert (lengths(params.fast) < 0.995).all()


def test_lookahead_around_psi_sees_no_scale():
    assert scales_exactly(lookahead(), **PAIRS)
    plain = optax.lookahead(optax.sgd(0.05), 5, 0.5)
    assert not scales_exactly(plain, **PAIRS)


# sam.


def ascent(groups=GROUP):
    """A perturbation of length 0.05 in direction space."""
    return optax.chain(
        psi_optax.transforms.scale_by_group_norm(groups),
        optax.contrib.normalize(),
        psi_optax.transforms.scale_by_group_norm(groups),
        optax.sgd(0.05),
    )


RAW_ASCENT = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))


def sharpness_aware(w, ascending, descending):
    """A step of SAM, of PSI-SGD with a rate of 0.05."""
    r = np.linalg.norm(w, axis=0)
    up = r * gradient(w, ascending)
    away = w + 0.05 * r * up / np.linalg.norm(up)
    return by_hand(w, -0.05 * r * gradient(away, descending))


@pytest.mark.usefixtures("x64")
def test_sam_around_psi():
    # The gradient is that of other weights, and has a radial part.
    descent = psi_optax.psi(optax.sgd(0.05), GROUP)
    history = run(optax.contrib.sam(descent, ascent()))
    w = COLUMNS.params
    for pair in COLUMNS.batches.reshape(STEPS // 2, 2, 9, 9):
        w = sharpness_aware(w, *pair)
    np.testing.assert_allclose(history[-1][0], w, **CLOSE)
    np.testing.assert_allclose(lengths(w), 1, rtol=1e-13)
    # In between, the weights are elsewhere.
    assert (np.abs(lengths(history[-2][0]) - 1) > 1e-5).any()


def gradients(batch):
    return lambda w, _: jax.grad(COLUMNS.loss)(w, batch)


@pytest.mark.usefixtures("x64")
def test_opaque_sam_inside_psi():
    """It asks for gradients at directions, which the loss takes for weights."""
    sam = optax.contrib.sam(optax.sgd(0.05), RAW_ASCENT, opaque_mode=True)
    history = run(psi(sam, GROUP), grad_fn=gradients)
    w = COLUMNS.params
    for batch in COLUMNS.batches:
        r = np.linalg.norm(w, axis=0)
        up = r * gradient(w, batch)
        away = w / r + 0.05 * up / np.linalg.norm(up)
        w = by_hand(w, -0.05 * gradient(away, batch))
    np.testing.assert_allclose(history[-1][0], w, **CLOSE)
    np.testing.assert_allclose(lengths(history[-1][0]), 1, rtol=1e-14)


def test_sam_sees_no_scale_if_its_ascent_does_not():
    inner = psi_sgd(0.05, GROUP, momentum=0.9)
    sam = optax.contrib.sam
    assert scales_exactly(sam(inner, ascent()))
    assert not scales_exactly(sam(inner, RAW_ASCENT))
    opaque = sam(optax.sgd(0.05), RAW_ASCENT, opaque_mode=True)
    assert scales_exactly(psi(opaque, GROUP), grad_fn=gradients)


# schedule_free and mechanize.


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("radius", ["init", None])
def test_schedule_free_around_psi_leaves_the_spheres(radius):
    """Updates of psi are for the point that it sees, not for another one."""
    tx = optax.contrib.schedule_free(psi_sgd(0.05, GROUP, radius=radius), 0.05)
    _, state = run(tx)[-1]
    assert lengths(state.z).max() > 1.02
    # What it is wanted for, an average, does not need that.
    tx = optax.chain(
        psi_sgd(0.05, GROUP, radius=radius),
        psi_optax.wrappers.average_weights(uniform),
    )
    params, _ = run(tx)[-1]
    np.testing.assert_allclose(lengths(params), 1, rtol=1e-13)


@pytest.mark.usefixtures("x64")
def test_mechanize_inside_psi_keeps_norms_and_around_it_does_not():
    """It goes on from where it finds the weights, not from what it keeps."""
    inside = psi(optax.contrib.mechanize(optax.sgd(1.0)), GROUP)
    around = optax.contrib.mechanize(psi_sgd(1.0, GROUP))
    plain = optax.contrib.mechanize(optax.sgd(1.0))
    weights = {
        name: run(tx)[-1][0]
        for name, tx in [("inside", inside), ("around", around)]
    }
    np.testing.assert_allclose(lengths(weights["inside"]), 1, rtol=1e-14)
    assert np.abs(lengths(weights["around"]) - 1).max() > 0.02
    # It learns: as much as without psi, from columns of norm 1.
    start = COLUMNS.params / np.linalg.norm(COLUMNS.params, axis=0)
    mean = np.mean(COLUMNS.batches, axis=0)
    first, found, without = (
        COLUMNS.loss(w, mean)
        for w in (start, weights["inside"], run(plain, start=start)[-1][0])
    )
    assert found < without + 0.05 < first - 0.5


TUNED = {
    "mechanize": lambda: optax.contrib.mechanize(optax.sgd(1.0)),
    "prodigy": lambda: optax.contrib.prodigy(),
    "dog": lambda: optax.contrib.dog(1.0),
}


@pytest.mark.parametrize("name", TUNED)
def test_what_finds_its_rate_by_where_it_began_sees_no_scale_inside(name):
    assert scales_exactly(psi(TUNED[name](), GROUP))


def test_mechanize_around_psi_sees_the_scale():
    assert not scales_exactly(optax.contrib.mechanize(psi_sgd(1.0, GROUP)))


# What is refused.

KEEPERS = {
    "schedule_free": (
        lambda: optax.contrib.schedule_free_sgd(0.1),
        "ScheduleFreeState.* average_weights after {what}",
    ),
    "sam": (
        lambda: optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.1)),
        "SAMState .*{what} .*opaque_mode",
    ),
    "cocob": (lambda: optax.contrib.cocob(), "COCOBState .*another optimizer"),
    "lbfgs": (
        lambda: optax.scale_by_lbfgs(),
        "ScaleByLBFGSState .*another optimizer",
    ),
    "average": (
        lambda: psi_optax.wrappers.average_weights(0.9),
        "AverageWeightsState .* after {what}",
    ),
    "perturb_weights": (
        lambda: psi_optax.wrappers.perturb_weights(
            optax.sgd(0.1), 0.1, None, 0
        ),
        "PerturbWeightsState .*{what} ",
    ),
    # Around, of narrow weights.
    "master_weights": (
        lambda: psi_optax.wrappers.master_weights(optax.sgd(0.1)),
        "MasterWeightsState .*{what} ",
    ),
    "stochastic_rounding": (
        lambda: psi_optax.wrappers.stochastic_rounding(optax.sgd(0.1), 0),
        "StochasticRoundingState .*{what} ",
    ),
}
NESTS = {
    "bare": lambda tx: tx,
    "chain": lambda tx: optax.chain(optax.clip(1.0), tx),
    "masked": lambda tx: optax.masked(tx, {"w": True, "gains": False}),
    "partition": lambda tx: optax.partition(
        {"ours": tx, "rest": optax.sgd(0.1)}, {"w": "ours", "gains": "rest"}
    ),
    "inject": lambda tx: optax.inject_hyperparams(
        lambda rate: optax.chain(tx, optax.scale(rate))
    )(0.1),
    "accumulate": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    "opaque": lambda tx: optax.contrib.sam(tx, tx, opaque_mode=True),
}
GROUPS = {"w": GROUP, "gains": None}
TAKERS = {
    "psi": lambda tx: psi(tx, GROUPS),
    "weight_rescaling": lambda tx: psi_optax.weight_rescaling(tx, GROUPS),
    "project_by_cosine": psi_optax.wrappers.project_by_cosine,
    "rotational": lambda tx: psi_optax.rotational(
        0.1, tx, GROUPS, ordinary=optax.sgd(0.1)
    ),
    "hyperball": lambda tx: psi_optax.hyperball(
        0.1, tx, GROUPS, equivariant=False, ordinary=optax.sgd(0.1)
    ),
    "equivariant": lambda tx: psi_optax.hyperball(
        0.1, tx, GROUPS, ordinary=optax.sgd(0.1)
    ),
}
# Those that are psi around something.
NAMES = {"rotational": "psi", "equivariant": "psi"}


def shapes():
    tree = {"w": jnp.ones((9, 4), "bfloat16"), "gains": jnp.ones(4, "bfloat16")}
    return jax.eval_shape(lambda: tree)


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("keeper", KEEPERS)
def test_what_keeps_weights_is_refused_by_all_who_move_them(taker, keeper):
    make, message = KEEPERS[keeper]
    message = message.format(what=NAMES.get(taker, taker))
    for nest in NESTS.values():
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(TAKERS[taker](nest(make())).init, shapes())


# An optimizer in the place of a direction is not refused, and warns.
@pytest.mark.filterwarnings("ignore:training would ascend")
@pytest.mark.parametrize("taker", TAKERS)
def test_what_keeps_none_of_them_is_not_refused(taker):
    for inner in [
        optax.contrib.sam(optax.sgd(0.1), RAW_ASCENT, opaque_mode=True),
        optax.contrib.mechanize(optax.sgd(0.1)),
        optax.contrib.prodigy(),
        optax.contrib.dog(1.0),
        optax.contrib.muon(0.1),
    ]:
        for nest in NESTS.values():
            jax.eval_shape(TAKERS[taker](nest(inner)).init, shapes())


def test_copies_of_ordinary_parameters_are_right():
    """Nobody but the optimizer moves those: the numbers are its own."""
    own = optax.contrib.schedule_free_sgd(0.1)
    params = {"w": jnp.asarray(COLUMNS.params, "float32"), "gains": jnp.ones(4)}
    tx = psi(optax.sgd(0.1), GROUPS, ordinary=own)
    state, alone = tx.init(params), own.init(params["gains"])
    gains = params["gains"]
    for scale in (1.0, -3.0, 0.5):
        gradient = jax.tree.map(lambda x, s=scale: s * x, params)
        updates, state = tx.update(gradient, state, params)
        expected, alone = own.update(gradient["gains"], alone, gains)
        np.testing.assert_array_equal(updates["gains"], expected)
        params = optax.apply_updates(params, updates)
        gains = params["gains"]
    # And among the weights of groups they are refused.
    with pytest.raises(ValueError, match="ScheduleFreeState"):
        psi(own, GROUPS).init(params)
