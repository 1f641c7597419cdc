"""Theorem 1 of the PSI paper: the path does not see the scale.

Yi (arXiv 2101.02916, UAI 2022), Theorem 1: start at W and at T_a(W), where T_a
multiplies group i by a_i > 0; then the paths are T_a of one another. Here a_i
is 10^U(-2, 2), and the optimizers that break the theorem stand beside those
that keep it. Bit for bit, by powers of two: `test_bit_equivariance.py`. All
transforms, for two steps on random trees: `tests/properties/test_scales.py`.
"""

import jax
import numpy as np
import optax
import pytest

import psi_optax
from tests.theory.networks import bn_mlp, mixed_network, rayleigh
from tests.theory.scales import (
    direction_error,
    norm_error,
    norms,
    powers_of_ten,
    rescaled,
)
from tests.theory.training import lenient, path_of

# A product by a_i rounds by 1.1e-16, and so does every operation after it: the
# paths part by that much a step, times what training makes of it, a factor of
# up to 1000 in 300 steps (`test_what_training_makes_of_rounding`). Found are
# 1e-15 to 6e-14; an error in a formula would show as 0.01.
ROUNDING = 1e-12

EQUIVARIANT = {
    "psi_sgd": lambda g: psi_optax.psi_sgd(0.1, g),
    "psi_sgd_momentum": lambda g: psi_optax.psi_sgd(0.05, g, momentum=0.9),
    "psi_sgdm": lambda g: psi_optax.psi_sgdm(0.05, g),
    "psi_sgdm_additive": lambda g: psi_optax.psi_sgdm(0.05, g, retraction=None),
    # With an epsilon that counts: it meets moments of degree 0.
    "psi_adam": lambda g: lenient(psi_optax.psi_adam(0.01, g, eps=0.1)),
    "sandwich": lambda g: optax.chain(
        psi_optax.transforms.scale_by_group_norm(g),
        optax.sgd(0.05, momentum=0.9),
        psi_optax.transforms.scale_by_group_norm(g),
    ),
    "clip_inside": lambda g: psi_optax.psi(
        optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.5)), g
    ),
    "clip_by_group_norm": lambda g: optax.chain(
        psi_optax.transforms.scale_by_group_norm(g),
        psi_optax.transforms.clip_by_group_norm(g, 0.05),
        optax.sgd(0.5),
        psi_optax.transforms.scale_by_group_norm(g),
        psi_optax.transforms.retract(g),
    ),
    "projected_momentum": lambda g: psi_optax.psi_direction(
        0.05, psi_optax.transforms.transported_trace(g, 0.9), g
    ),
    # A norm that is kept is one factor of all gradients, and a step of a given
    # length does not see it, if the direction is linear.
    "hyperball_of_raw_gradients": lambda g: psi_optax.hyperball(
        0.02,
        optax.trace(0.9),
        g,
        per_tensor=False,
        equivariant=False,
        ordinary=optax.sgd(0.02, 0.9),
    ),
}

NOT_EQUIVARIANT = {
    "sgd": lambda _: optax.sgd(0.1),
    "sgd_momentum": lambda _: optax.sgd(0.05, momentum=0.9),
    "adam": lambda _: lenient(optax.adam(0.01)),
    "clip_in_front": lambda g: optax.chain(
        optax.clip_by_global_norm(0.1), psi_optax.psi_sgd(0.5, g)
    ),
    "project_by_cosine": lambda _: optax.chain(
        psi_optax.wrappers.project_by_cosine(optax.trace(0.9)),
        optax.scale(-0.05),
    ),
    "adamh_of_raw_gradients": lambda g: lenient(
        psi_optax.adamh(
            0.02,
            g,
            eps=0.1,
            per_tensor=False,
            equivariant=False,
            ordinary=optax.adam(0.02, eps=0.1),
        )
    ),
    "one_ball_a_tensor": lambda g: psi_optax.hyperball(
        0.02, optax.trace(0.9), g, ordinary=optax.sgd(0.02, 0.9)
    ),
    "sgd_then_rescale": lambda g: optax.chain(
        optax.sgd(0.1), psi_optax.transforms.rescale_weights(g)
    ),
    "adam_inside_once_scaled": lambda g: lenient(
        optax.chain(
            psi_optax.transforms.scale_by_group_norm(g),
            psi_optax.transforms.scale_by_group_norm(g),
            optax.adam(0.01),
        )
    ),
}


def pair(make_tx, problem, factors):
    """The paths from W and from T_a(W)."""
    tx = make_tx(problem.groups)
    start = rescaled(problem.params, problem.ids, factors)
    return path_of(tx, problem), path_of(tx, problem, start)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "make"),
    [
        *((name, bn_mlp) for name in EQUIVARIANT),
        # Ties and blocks.
        ("psi_sgd_momentum", mixed_network),
    ],
)
def test_theorem_1(name, make):
    problem = make(300)
    factors = powers_of_ten(problem.ids)
    paths = pair(EQUIVARIANT[name], problem, factors)
    assert direction_error(*paths, problem.ids) < ROUNDING
    assert norm_error(*paths, problem.ids, factors) < ROUNDING


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("make", [bn_mlp, mixed_network])
def test_what_training_makes_of_rounding(make):
    problem = make(300)
    tx = EQUIVARIANT["psi_sgd_momentum"](problem.groups)
    random = np.random.RandomState(0)
    start = jax.tree.map(
        lambda x: x * (1 + 1e-15 * random.normal(size=x.shape)), problem.params
    )
    paths = path_of(tx, problem), path_of(tx, problem, start)
    assert 1e-16 < direction_error(*paths, problem.ids) < 1000 * 1e-15


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", NOT_EQUIVARIANT)
def test_optimizers_that_see_the_scale(name):
    problem = bn_mlp(300)
    paths = pair(NOT_EQUIVARIANT[name], problem, powers_of_ten(problem.ids))
    assert direction_error(*paths, problem.ids) > 1e-2


@pytest.mark.parametrize("name", ["psi_sgd", "psi_sgdm", "psi_adam"])
def test_theorem_1_in_single_precision(name):
    # 30 steps from roundings of 6e-8; noise in the gradients of BatchNorm
    # amplifies them by no more than 1e4 in so short a time.
    problem = bn_mlp(30, dtype=np.float32)
    factors = powers_of_ten(problem.ids)
    paths = pair(EQUIVARIANT[name], problem, factors)
    assert direction_error(*paths, problem.ids) < 1e-3
    assert norm_error(*paths, problem.ids, factors) < 1e-5
    paths = pair(NOT_EQUIVARIANT["sgd"], problem, factors)
    assert direction_error(*paths, problem.ids) > 1e-2


RATE, DECAY = 0.1, 0.3


def decoupled(g):
    """The paper's additive step, and w <- (1 - rate * decay) w of groups."""
    return optax.chain(
        psi_optax.psi_sgd(RATE, g, retraction=None),
        psi_optax.transforms.add_decayed_weights(-RATE * DECAY, g, of="scale"),
    )


def coupled(make_tx):
    """L2 in the loss, as far as the optimizer can tell."""
    return lambda g: optax.chain(optax.add_decayed_weights(DECAY), make_tx(g))


@pytest.mark.usefixtures("x64")
def test_decoupled_decay_is_equivariant():
    # Decay and step are both of degree 1.
    problem = bn_mlp(300)
    factors = powers_of_ten(problem.ids)
    paths = pair(decoupled, problem, factors)
    assert direction_error(*paths, problem.ids) < ROUNDING
    assert norm_error(*paths, problem.ids, factors) < ROUNDING
    # And it is no idle term: the norms fall.
    assert norms(paths[0], problem.ids)[-1].max() < 0.1


@pytest.mark.usefixtures("x64")
def test_decoupled_decay_makes_the_step_longer():
    # v + t x and (1 - rate * decay) v + t x point as steps of t and of
    # t/(1 - rate * decay) do.
    problem = rayleigh()
    longer = psi_optax.psi_sgd(RATE / (1 - RATE * DECAY), problem.groups)
    path = path_of(decoupled(problem.groups), problem)
    same = path_of(longer, problem)
    other = path_of(psi_optax.psi_sgd(RATE, problem.groups), problem)
    assert direction_error(path, same, problem.ids) < ROUNDING
    assert direction_error(path, other, problem.ids) > 1e-3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name", ["psi_sgdm", "psi_sgdm_additive", "psi_adam", "sandwich"]
)
def test_coupled_decay_is_not_equivariant(name):
    # Its gradient is of degree 1 among those of degree -1. psi_sgdm and the
    # bare sandwich take it as it is, Adam's moments mix it with the rest.
    problem = bn_mlp(100)
    factors = powers_of_ten(problem.ids, span=0.5)
    paths = pair(coupled(EQUIVARIANT[name]), problem, factors)
    assert direction_error(*paths, problem.ids) > 1e-2


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("retraction", ["projection", None])
def test_coupled_decay_is_projected_away_where_nothing_mixes_it(retraction):
    # Under psi with SGD inside it does nothing at all: it is radial, and psi
    # takes the tangent part of the step. Rounding leaves 1e-16 of its size in
    # direction space, DECAY r^2, so the norms may not have grown much.
    problem = rayleigh(20)
    tx = psi_optax.psi_direction(
        RATE, optax.identity(), problem.groups, retraction=retraction
    )
    decayed = optax.chain(optax.add_decayed_weights(DECAY), tx)
    paths = path_of(tx, problem), path_of(decayed, problem)
    assert norms(paths[0], problem.ids).max() < 100
    assert direction_error(*paths, problem.ids) < ROUNDING
    assert norm_error(*paths, problem.ids, 1.0) < ROUNDING
