"""Plain numpy rules against what the peers did; three of them have a fault."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.oracles import frozen, rules

# Twelve steps of some forty operations on numbers below 10, each rounded to
# 1.1e-16 relatively: 12 * 40 * 10 * 1.1e-16 = 5.3e-13, were all errors of one
# sign. The gradients are replayed, so that no error feeds back through them.
CLOSE = {"rtol": 0, "atol": 1e-12}

RULES = {
    "torch_sgd": rules.sgd,
    "torch_adamw": rules.adamw,
    "timm_sgdp": rules.sgdp,
    "timm_adamp": rules.adamp,
    "adamp_sgdp_nesterov": rules.sgdp,
    "adamp_sgdp": functools.partial(rules.sgdp, projects_buffer=True),
    "adamp_adamp": rules.adamp,
    "pytorch_optimizer_sgdp": rules.sgdp,
    "geoopt_sgd_exact": functools.partial(rules.riemannian_sgd, exact=True),
    "geoopt_sgd_momentum": functools.partial(
        rules.riemannian_sgd, starts_euclidean=True
    ),
    "geoopt_sgd": rules.riemannian_sgd,
    "geoopt_adam": rules.riemannian_adam,
    "emerging_oblique_sgd": rules.oblique_sgd,
    "emerging_oblique_adam": functools.partial(
        rules.oblique_adam, roots_correction=False
    ),
    "rbn_sgd_g": rules.sgd_g,
    "rbn_adam_g": rules.adam_g,
    "req": rules.rotational,
}
TRAJECTORIES = [x for x in frozen.names() if x != "pymanopt_oblique"]
SCENARIOS = ("channel", "layer", "neither")


def rule_of(name):
    """Of the longest beginning of the name that has one."""
    return RULES[max(filter(name.startswith, RULES), key=len)]


def replay(rule, trajectory, **changed):
    """The weights after each step, of shape (steps, filters, size)."""
    settings = {**trajectory.settings, **changed}
    steps = rule(trajectory.start, trajectory.gradients, **settings)
    return np.stack(list(steps))


def distance(params, trajectory):
    return np.abs(params - trajectory.params).max()


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_the_rule_is_what_the_peer_did(name):
    seen = frozen.load(name)
    got = replay(rule_of(name), seen)
    np.testing.assert_allclose(got, seen.params, **CLOSE)
    # A learning rate that is a hundredth off shows.
    rate = 1.01 * seen.settings["lr"]
    assert distance(replay(rule_of(name), seen, lr=rate), seen) > 1e-4


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_a_file_is_plain_double_precision_and_says_what_made_it(name):
    seen = frozen.load(name)
    for array in seen.start, seen.gradients, seen.params:
        assert array.dtype == np.float64
        assert np.isfinite(array).all()
    assert seen.gradients.shape == seen.params.shape == (12, 3, 5)
    assert {"python", "numpy", "torch"} <= seen.versions.keys()


def test_all_data_together_are_small():
    assert sum(x.stat().st_size for x in frozen.DATA.iterdir()) < 200_000


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("decay", ["", "_decay"])
@pytest.mark.parametrize("optimizer", ["sgdp", "sgdp_nesterov", "adamp"])
def test_in_every_scenario_one_view_fires_at_every_step(
    optimizer, scenario, decay
):
    seen = frozen.load(f"timm_{optimizer}_{scenario}{decay}")
    before = [seen.start, *seen.params[:-1]]
    fired = map(rules.firing_view, before, seen.gradients)
    assert set(fired) == {scenario}


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("nesterov", ["", "_nesterov"])
def test_sgdp_without_decay_is_sgd_where_no_view_fires(scenario, nesterov):
    seen = frozen.load(f"timm_sgdp{nesterov}_{scenario}")
    error = distance(replay(rules.sgd, seen), seen)
    assert error < CLOSE["atol"] if scenario == "neither" else error > 1e-3


@pytest.mark.parametrize(
    ("name", "sound"),
    [
        ("adamp_sgdp", rules.sgdp),
        ("geoopt_sgd_momentum", rules.riemannian_sgd),
        ("emerging_oblique_adam", rules.oblique_adam),
    ],
)
def test_without_the_fault_the_rule_is_another(name, sound):
    """Three peers differ from what they are meant to do.

    adamp's SGDP without Nesterov projects in the memory of its momentum, so
    that the next step starts from the projected momentum. geoopt's
    RiemannianSGD starts its momentum at the Euclidean gradient and then adds
    the Riemannian one. Emerging-Optimizers' ObliqueAdam divides the root of
    the second moment by 1 - b^t where Adam divides by its root.
    """
    seen = frozen.load(name)
    assert distance(replay(sound, seen), seen) > 1e-3


def test_three_libraries_agree_on_sgdp_where_adamp_has_no_fault():
    timm = frozen.load("timm_sgdp_channel_decay")
    kozistr = frozen.load("pytorch_optimizer_sgdp")
    assert distance(kozistr.params, timm) < CLOSE["atol"]
    nesterov = frozen.load("timm_sgdp_nesterov_channel_decay")
    authors = frozen.load("adamp_sgdp_nesterov")
    assert distance(authors.params, nesterov) < CLOSE["atol"]
    assert distance(authors.params, timm) > 1e-3


@pytest.mark.parametrize("name", frozen.names("rbn"))
def test_the_epsilon_of_the_port_is_all_that_departs_from_the_paper(name):
    """It shrinks every norm by 1e-8: some 1e-8 / |step| a step, |step| > 1e-2.

    What is compared with SGD-G or Adam-G without it can agree to 1e-5, no
    better.
    """
    seen = frozen.load(name)
    error = distance(replay(rule_of(name), seen, eps=0.0), seen)
    assert 1e-9 < error < 12 * 1e-8 / 1e-2


def run(tx, seen):
    """The weights after each step of an optax optimizer."""

    def step(carry, gradient):
        w, state = carry
        updates, state = tx.update(gradient, state, w)
        w = optax.apply_updates(w, updates)
        return (w, state), w

    w = jnp.asarray(seen.start)
    _, path = jax.lax.scan(step, (w, tx.init(w)), jnp.asarray(seen.gradients))
    return np.asarray(path)


def optax_sgd(lr, momentum=None, nesterov=False, weight_decay=0.0):
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.sgd(lr, momentum=momentum, nesterov=nesterov),
    )


def optax_adamw(lr, betas, eps, weight_decay):
    b1, b2 = betas
    return optax.adamw(lr, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)


@pytest.mark.usefixtures("x64", "optax_promotion")
@pytest.mark.parametrize("name", frozen.names("torch"))
def test_optax_does_what_torch_does(name):
    seen = frozen.load(name)
    make = optax_adamw if name == "torch_adamw" else optax_sgd
    settings = seen.settings
    np.testing.assert_allclose(
        run(make(**settings), seen), seen.params, **CLOSE
    )
    # The control: a learning rate that is a hundredth off.
    settings = {**settings, "lr": 1.01 * settings["lr"]}
    assert distance(run(make(**settings), seen), seen) > 1e-4
