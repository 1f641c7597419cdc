"""Our optimizers against what other libraries did, step by step.

Rows are filters in the frozen data, so a group lies along axis 1. Where a peer
adds an epsilon to a norm and we do not, the plain rule, which `test_rules.py`
holds to the peer, is compared without it to 1e-12, and the peer itself to what
its epsilon of 1e-8 makes of twelve steps.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from psi_optax import ScaleGroup
from tests.oracles import frozen, rules
from tests.oracles.test_rules import CLOSE, distance, replay, run

pytestmark = pytest.mark.usefixtures("x64", "optax_promotion")

FILTERS = ScaleGroup(axes=1)
GROUPS = {"channel": FILTERS, "layer": ScaleGroup((0, 1)), "neither": None}

# An epsilon of 1e-8 beside norms of 0.1 and more, twelve times over.
BLURRED = 1e-5


def assert_is_the_peer(make, seen, atol=CLOSE["atol"]):
    """Equal, and not with a rate that is a hundredth off."""
    rate = seen.settings["lr"]
    assert distance(run(make(rate), seen), seen) < atol
    assert distance(run(make(1.01 * rate), seen), seen) > max(1e-4, 10 * atol)


# AdamP and SGDP: the test of cosines as it was published, with its epsilon.


def by_cosine(seen, direction, weight_decay):
    return lambda rate: optax.chain(
        psi_optax.wrappers.project_by_cosine(
            direction, weight_decay=weight_decay, channels="first"
        ),
        optax.scale_by_learning_rate(rate),
    )


def decay_of(seen):
    return seen.settings.get("weight_decay", 0.0)


def trace_of(seen):
    return optax.trace(
        seen.settings["momentum"], seen.settings.get("nesterov", False)
    )


def adam_of(seen, **options):
    b1, b2 = seen.settings["betas"]
    return {"b1": b1, "b2": b2, "eps": seen.settings["eps"], **options}


SGDP = [
    *frozen.names("timm_sgdp"),
    "adamp_sgdp_nesterov",
    "pytorch_optimizer_sgdp",
]
ADAMP = [*frozen.names("timm_adamp"), "adamp_adamp"]


@pytest.mark.parametrize("name", SGDP)
def test_sgdp_by_cosine(name):
    seen = frozen.load(name)
    decay = decay_of(seen) / (1 - seen.settings["momentum"])
    assert_is_the_peer(by_cosine(seen, trace_of(seen), decay), seen)


@pytest.mark.parametrize("name", ADAMP)
def test_adamp_by_cosine(name):
    seen = frozen.load(name)
    direction = optax.scale_by_adam(**adam_of(seen))
    assert_is_the_peer(by_cosine(seen, direction, decay_of(seen)), seen)


# With groups, in place of the test: the view that fires is what we are told.


def scenarios(prefix):
    """Names of timm's trajectories with the groups that they amount to."""
    return [
        (name, view)
        for name in frozen.names(prefix)
        for view in GROUPS
        if view in name.split("_")
    ]


def assert_is_the_rule(tx, rule, seen, monkeypatch, **changed):
    """Equal to the rule without epsilons; and close to the peer with them."""
    path = run(tx, seen)
    assert distance(path, seen) < BLURRED
    monkeypatch.setattr(rules, "TINY", 0.0)
    expected = replay(rule, seen, **changed)
    np.testing.assert_allclose(path, expected, **CLOSE)


def momentum_of(seen):
    names = seen.settings.keys() & {"momentum", "nesterov"}
    return {name: seen.settings[name] for name in names}


PROJECTED = {
    "sgdp": (psi_optax.sgdp, rules.sgdp, momentum_of),
    "adamp": (psi_optax.adamp, rules.adamp, adam_of),
}


@pytest.mark.parametrize(
    ("recipe", "name", "view"),
    [
        (recipe, *scenario)
        for recipe in PROJECTED
        for scenario in scenarios(f"timm_{recipe}")
    ],
)
def test_projections_with_groups(recipe, name, view, monkeypatch):
    seen = frozen.load(name)
    make, rule, options = PROJECTED[recipe]

    def ours(groups):
        given = {**options(seen), "weight_decay": decay_of(seen)}
        return make(seen.settings["lr"], groups, **given)

    assert_is_the_rule(ours(GROUPS[view]), rule, seen, monkeypatch)
    other = GROUPS["neither" if view == "channel" else "channel"]
    assert distance(run(ours(other), seen), seen) > 1e-3


# On spheres. The peers' gradients have radial parts, and starts norm 1.


def on_tangents(rate, direction):
    """The direction of the tangent parts of gradients."""
    tangent = psi_optax.transforms.project_to_tangent(FILTERS)
    return psi_optax.psi_direction(
        rate, optax.chain(tangent, direction), FILTERS
    )


# The recorded gradients are not tangent: psi_sgd would take them for it.
DESCENTS = {
    "geoopt_sgd": lambda seen, rate: psi_optax.psi_direction(
        rate, optax.identity(), FILTERS
    ),
    "geoopt_sgd_exact": lambda seen, rate: psi_optax.psi_sgd(
        rate, FILTERS, retraction="exponential"
    ),
    "geoopt_sgd_momentum": lambda seen, rate: on_tangents(
        rate,
        psi_optax.transforms.transported_trace(
            FILTERS, seen.settings["momentum"]
        ),
    ),
    "geoopt_adam": lambda seen, rate: on_tangents(
        rate,
        psi_optax.transforms.scale_by_group_adam(
            FILTERS, **adam_of(seen), transport="projection"
        ),
    ),
    "emerging_oblique_sgd": lambda seen, rate: psi_optax.psi_direction(
        rate, optax.trace(seen.settings["momentum"]), FILTERS
    ),
    "emerging_oblique_adam": lambda seen, rate: psi_optax.psi_adam(
        rate, FILTERS, **adam_of(seen)
    ),
}
# geoopt adds the first gradient twice; the other's bias correction is no root.
FAULTY = {
    "geoopt_sgd_momentum": rules.riemannian_sgd,
    "emerging_oblique_adam": rules.oblique_adam,
}


@pytest.mark.parametrize("name", DESCENTS)
def test_descent_on_spheres_is_that_of_peers_but_for_two_faults(name):
    seen = frozen.load(name)
    make = functools.partial(DESCENTS[name], seen)
    if name not in FAULTY:
        assert_is_the_peer(make, seen)
        return
    path = run(make(seen.settings["lr"]), seen)
    np.testing.assert_allclose(path, replay(FAULTY[name], seen), **CLOSE)
    assert distance(path, seen) > 0.1


@pytest.mark.parametrize("name", frozen.names("rbn_sgd_g"))
def test_sgd_g(name):
    seen = frozen.load(name)

    def sgd_g(rate):
        return psi_optax.sgd_g(
            rate,
            FILTERS,
            momentum=seen.settings["momentum"],
            max_norm=seen.settings.get("grad_clip"),
        )

    # The port divides by norms plus 1e-8.
    assert_is_the_peer(sgd_g, seen, BLURRED)
    expected = replay(rules.sgd_g, seen, eps=0.0)
    np.testing.assert_allclose(
        run(sgd_g(seen.settings["lr"]), seen), expected, **CLOSE
    )


@pytest.mark.parametrize("name", frozen.names("rbn_adam_g"))
def test_adam_g(name):
    seen = frozen.load(name)

    def adam_g(rate, eps_root=1e-8):
        return psi_optax.adam_g(
            rate,
            FILTERS,
            b1=seen.settings["momentum"],
            eps_root=eps_root,
            max_norm=seen.settings.get("grad_clip"),
        )

    assert_is_the_peer(adam_g, seen, BLURRED)
    expected = replay(rules.adam_g, seen, eps=0.0, epsilon=0.0)
    path = run(adam_g(seen.settings["lr"], 0.0), seen)
    np.testing.assert_allclose(path, expected, **CLOSE)


@pytest.mark.parametrize("name", frozen.names("req"))
def test_rotational(name, monkeypatch):
    seen = frozen.load(name)
    settings, changed = seen.settings, {}
    if settings["inner_type"] == "sgdm":
        direction = optax.trace(settings["momentum"])
        share = 1 / (1 + settings["momentum"])
    else:
        b1, b2 = settings["betas"]
        direction, changed = optax.scale_by_adam(b1, b2, 0.0), {"eps": 0.0}
        share = (1 - b1) / (1 + b1)
    rate = math.sqrt(2 * settings["lr"] * settings["weight_decay"] * share)

    def rotational(centered):
        return psi_optax.rotational(
            rate, direction, FILTERS, eps=0.0, centered=centered
        )

    assert_is_the_rule(
        rotational(settings["zero_mean"]),
        rules.rotational,
        seen,
        monkeypatch,
        **changed,
    )
    other = run(rotational(not settings["zero_mean"]), seen)
    assert distance(other, seen) > 1e-3


# AdamH has no independent implementation that installs: its rule, in numpy.


def hyperball(seen, directions, rate, axes):
    """P <- |p| N(p - rate |p| N(u)), as published."""
    w = seen.start
    radius = np.sqrt(np.sum(w**2, axes, keepdims=True))
    for u in directions:
        w = w - rate * radius * u / np.sqrt(np.sum(u**2, axes, keepdims=True))
        w = radius * w / np.sqrt(np.sum(w**2, axes, keepdims=True))
        yield w


@pytest.mark.parametrize("per_tensor", [True, False])
def test_adamh(per_tensor):
    seen = frozen.load("adamp_adamp")
    axes = (0, 1) if per_tensor else (1,)

    def adamh(rate, equivariant):
        return psi_optax.adamh(
            rate,
            FILTERS,
            **adam_of(seen),
            per_tensor=per_tensor,
            equivariant=equivariant,
        )

    raw = rules.adam_steps(
        seen.gradients, seen.settings["betas"], seen.settings["eps"]
    )
    expected = np.stack(list(hyperball(seen, raw, 0.05, axes)))
    path = run(adamh(0.05, False), seen)
    np.testing.assert_allclose(path, expected, **CLOSE)
    # The norm is kept, so what the direction sees is the gradient times one
    # number: the same but for Adam's epsilon.
    np.testing.assert_allclose(
        run(adamh(0.05, True), seen), expected, rtol=0, atol=BLURRED
    )
    assert np.abs(run(adamh(0.051, True), seen) - expected).max() > 1e-3


def test_muonh_is_a_ball_around_optax_muon():
    seen = frozen.load("adamp_adamp")
    muon = optax.contrib.scale_by_muon(
        weight_dimension_numbers=optax.contrib.MuonDimensionNumbers(0, 1)
    )
    state, steps = muon.init(jnp.asarray(seen.start)), []
    for gradient in seen.gradients:
        step, state = muon.update(jnp.asarray(gradient), state)
        steps.append(np.asarray(step))
    expected = np.stack(list(hyperball(seen, steps, 0.05, (0, 1))))
    path = run(psi_optax.muonh(0.05, FILTERS, equivariant=False), seen)
    np.testing.assert_allclose(path, expected, **CLOSE)
    assert (
        np.abs(run(psi_optax.adamh(0.05, FILTERS), seen) - expected).max()
        > 1e-3
    )
