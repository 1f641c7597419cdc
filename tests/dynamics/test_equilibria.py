"""Equilibria and transients, against optax's own optimizers on noise.

Tolerance: 1 %. The sum of the squares of n weights fluctuates by sqrt(2/n) of
it, a norm by half of that: by 1.1 % for the 256 weights of 16 groups, at any
one time, and the mean over the ten or more correlation times, of 1/(2 eta lam)
steps, of a run by 0.35 %. Transients are looked at time by time, with more
groups. Under SGD and psi without momentum nothing fluctuates: the length of a
step is known.
"""

import functools
from typing import NamedTuple

import jax
import numpy as np
import optax
import pytest

from psi_optax._compat import enable_x64
from psi_optax.dynamics import (
    equilibrium_norm,
    equilibrium_rotation,
    equilibrium_transient,
    matching_learning_rate,
)
from tests.dynamics.simulation import rms, signs, simulate

pytestmark = pytest.mark.usefixtures("optax_promotion")

SIZE = 256


def sgd(rate, decay, momentum=0.0):
    return optax.chain(
        optax.add_decayed_weights(decay), optax.sgd(rate, momentum)
    )


def sgdw(rate, decay, momentum=0.0):
    return optax.chain(
        optax.trace(momentum),
        optax.add_decayed_weights(decay),
        optax.scale_by_learning_rate(rate),
    )


def adamw(rate, decay, momentum=0.9):
    # The gradients' size changes as the norm does, and Adam should not notice
    # late: noise of signs has one size, so that no b2 biases its root.
    return optax.adamw(rate, momentum, 0.9, 0.0, weight_decay=decay)


def lion(rate, decay, momentum=0.9, b2=0.99):
    return optax.lion(rate, momentum, b2, weight_decay=decay)


def psi(rate, decay):
    def update(g, state, w):
        square = (w**2).sum(0, keepdims=True)
        return -rate * square * (g + decay * w), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


RULES = {"sgd": sgd, "sgdw": sgdw, "adamw": adamw, "lion": lion, "psi": psi}


class Case(NamedTuple):
    optimizer: str
    rate: float
    decay: float
    kwargs: dict
    steps: int
    groups: int = 16

    def run(self, times=1.0):
        """Starts from so many times the predicted norm."""
        return simulate(
            RULES[self.optimizer](self.rate, self.decay, **self.kwargs),
            times * self.norm(),
            self.steps,
            draw=signs if self.optimizer == "adamw" else jax.random.normal,
            shape=(SIZE, self.groups),
        )

    @property
    def keywords(self):
        """How the law is called."""
        keywords = {"optimizer": self.optimizer, **self.kwargs}
        if self.optimizer in ("adamw", "lion"):
            return {**keywords, "size": SIZE}
        return {**keywords, "gradient_norm": 1.0}

    def norm(self):
        return equilibrium_norm(self.rate, self.decay, **self.keywords)

    def angle(self):
        keywords = {k: v for k, v in self.keywords.items() if k != "size"}
        return equilibrium_rotation(self.rate, self.decay, **keywords)

    def transient(self, steps, times):
        return equilibrium_transient(
            steps, times * self.norm(), self.rate, self.decay, **self.keywords
        )


CASES = {
    "sgd": Case("sgd", 0.1, 0.05, {}, 400),
    "sgd_momentum": Case("sgd", 0.1, 0.05, {"momentum": 0.9}, 1000),
    "sgdw": Case("sgdw", 0.1, 0.05, {}, 400),
    "sgdw_momentum": Case("sgdw", 0.1, 0.05, {"momentum": 0.9}, 1500),
    "adamw_no_b1": Case("adamw", 0.01, 0.5, {"momentum": 0.0}, 1500),
    "adamw": Case("adamw", 0.01, 0.5, {}, 2000),
    "lion": Case("lion", 0.01, 0.5, {}, 3000),
    "lion_0.95": Case("lion", 0.01, 0.5, {"momentum": 0.95, "b2": 0.98}, 2000),
    "lion_no_b1": Case("lion", 0.01, 0.5, {"momentum": 0.0}, 1500),
    "psi": Case("psi", 0.2, 0.05, {}, 400),
}


@functools.cache
def settled(name):
    run = CASES[name].run()
    # The buffers start empty; the weights are where they will be.
    return run.norm[200:], run.angle[200:]


@pytest.mark.parametrize("name", CASES)
def test_equilibrium(name):
    norm, angle = settled(name)
    case = CASES[name]
    np.testing.assert_allclose(rms(norm), case.norm(), rtol=0.01)
    np.testing.assert_allclose(rms(angle), case.angle(), rtol=0.01)


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("sgd_momentum", "sgdw_momentum"),
        ("sgdw_momentum", "sgd_momentum"),
        ("sgd_momentum", "sgd"),
        ("adamw", "adamw_no_b1"),
        ("lion", "lion_no_b1"),
        ("lion", "lion_0.95"),
    ],
)
def test_the_law_of_another_optimizer(name, law):
    norm, angle = settled(name)
    other = CASES[name]._replace(
        optimizer=CASES[law].optimizer, kwargs=CASES[law].kwargs
    )
    # AdamW's norm does not depend on b1; one of the two has to tell.
    off = abs(rms(angle) / other.angle() - 1), abs(rms(norm) / other.norm() - 1)
    assert max(off) > 0.05


@pytest.mark.parametrize(
    ("name", "b1", "expected"), [("lion", 0.9, 1.16), ("lion_no_b1", 0.0, 0.8)]
)
def test_the_published_formula_for_lion(name, b1, expected):
    """It takes the arcsine to be linear, and eta lam to be 0 beside 1 - b2."""
    b2, product = 0.99, CASES[name].rate * CASES[name].decay
    total = (1 - b1) ** 2 + b1**2 * (1 - b2) / (1 + b2)
    published = np.sqrt(np.pi / 2 * 2 * product * total)
    _, angle = settled(name)
    np.testing.assert_allclose(rms(angle) / published, expected, atol=0.01)


# Transients. They want eta lam small against the square of 1 - mu: noise acts
# some mu/(1 - mu) steps late, which is an error of k times that in the exponent
# of exp(-kt), and here of half a percent of the norm.

SLOW = {
    "sgd": Case("sgd", 0.1, 0.02, {}, 400),
    "sgd_momentum": Case("sgd", 0.1, 2e-4, {"momentum": 0.9}, 1500),
    "sgdw": Case("sgdw", 0.1, 0.01, {}, 500),
    "sgdw_momentum": Case("sgdw", 0.1, 5e-3, {"momentum": 0.5}, 800),
    "adamw": Case("adamw", 0.01, 0.2, {"momentum": 0.5}, 400, 128),
    "lion": Case("lion", 0.01, 0.1, {"momentum": 0.5, "b2": 0.8}, 800, 128),
    "psi": Case("psi", 0.05, 0.05, {}, 500),
}


TIMES = 0.7  # of the equilibrium's norm, at the start


@pytest.mark.parametrize("name", SLOW)
def test_transient(name):
    case = SLOW[name]
    norm = case.run(TIMES).norm
    steps = np.arange(len(norm))
    np.testing.assert_allclose(norm, case.transient(steps, TIMES), rtol=0.01)
    # The controls: twice the pace is another curve, as is no transient at all.
    faster = case.transient(2 * steps, TIMES)
    assert np.abs(norm / faster - 1).max() > 0.04
    assert np.abs(norm / case.norm() - 1).max() > 0.2


# Numbers and arguments.


@pytest.mark.parametrize("optimizer", ["sgd", "sgdw", "adamw", "lion"])
def test_small_angles_in_float32(optimizer):
    # eta lam = 1e-9 is lost in 1 - eta lam; a dozen roundings of 6e-8.
    angle = equilibrium_rotation(1e-5, 1e-4, optimizer=optimizer)
    with enable_x64(True):
        exact = equilibrium_rotation(1e-5, 1e-4, optimizer=optimizer)
    assert angle.dtype == np.float32
    assert exact.dtype == np.float64
    np.testing.assert_allclose(angle, exact, rtol=1e-6)
    # The control: the cosine of such an angle is 1 in float32.
    assert np.float32(np.cos(exact)) == 1


def test_usual_approximations():
    # To leading order in eta lam = 1e-6, of which (1 + mu)/(1 - mu) = 19 times.
    x, mu = 1e-6, 0.9
    for optimizer, factor in [
        ("sgd", 1 / (1 + mu)),
        ("sgdw", (1 - mu) / (1 + mu)),
        ("adamw", (1 - mu) / (1 + mu)),
    ]:
        angle = equilibrium_rotation(
            1e-3, 1e-3, optimizer=optimizer, momentum=mu
        )
        np.testing.assert_allclose(angle, np.sqrt(2 * x * factor), rtol=2e-5)


def test_psi_turns_alike_under_any_decay():
    for decay in [1e-4, 1.0]:
        angle = equilibrium_rotation(
            0.2, decay, optimizer="psi", gradient_norm=1.0
        )
        np.testing.assert_allclose(angle, np.arcsin(0.2), rtol=1e-6)
    stuck = equilibrium_rotation(2.0, 1.0, optimizer="psi", gradient_norm=1.0)
    assert np.isnan(stuck)


def test_rates_are_arrays_and_traced():
    rates = np.array([0.1, 0.01], np.float32)
    for optimizer in ["sgd", "sgdw", "adamw", "lion"]:
        function = functools.partial(
            equilibrium_rotation, weight_decay=1e-3, optimizer=optimizer
        )
        # Fused or not, a few roundings.
        np.testing.assert_allclose(
            jax.jit(function)(rates), function(rates), rtol=1e-6
        )
        for rate, angle in zip(rates, function(rates), strict=True):
            np.testing.assert_allclose(angle, function(rate), rtol=1e-6)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"optimizer": "adam"}, "optimizer='adam'.*'sgd', 'sgdw'"),
        ({"optimizer": "psi", "momentum": 0.9}, r"momentum=0\.9.*psi"),
        ({"optimizer": "psi"}, "gradient_norm"),
        ({"optimizer": "adamw"}, "size"),
        ({}, "gradient_norm"),
        ({"b2": 0.99}, r"b2=0\.99.*sgd"),
        ({"momentum": 1.0}, r"momentum=1\.0"),
        ({"weight_decay": 0.0}, r"weight_decay=0\.0"),
        ({"learning_rate": -1.0}, r"learning_rate=-1\.0"),
    ],
)
def test_what_cannot_be_answered(kwargs, message):
    with pytest.raises(ValueError, match=message):
        equilibrium_norm(
            **{"learning_rate": 0.1, "weight_decay": 0.1, **kwargs}
        )


@pytest.mark.parametrize("optimizer", ["sgd", "psi", "adamw"])
def test_a_transient_begins_where_it_is_told(optimizer):
    given = {"size": 800} if optimizer == "adamw" else {"gradient_norm": 1.0}
    for start in (1e-8, 1e-2, 1.0, 500, 1e8):
        norms = [
            equilibrium_transient(
                step, start, 0.1, 5e-3, optimizer=optimizer, **given
            )
            for step in (0, 1, 10**6)
        ]
        end = equilibrium_norm(0.1, 5e-3, optimizer=optimizer, **given)
        np.testing.assert_allclose(norms[0], start, rtol=1e-6)
        np.testing.assert_allclose(norms[2], end, rtol=1e-6)
        assert (norms[1] - start) * (end - start) >= 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"gradient_norm": -1.0}, r"gradient_norm=-1\.0"),
        ({"gradient_norm": 0.0}, r"gradient_norm=0\.0"),
        (
            {"learning_rate": 1.0, "weight_decay": 1.5},
            r"learning_rate \* weight_decay = 1\.5",
        ),
    ],
)
def test_what_no_rate_matches(kwargs, message):
    kwargs = {"learning_rate": 0.1, "weight_decay": 0.1, **kwargs}
    rest = {"gradient_norm": 1.0, **kwargs}
    for function in (equilibrium_norm, matching_learning_rate):
        with pytest.raises(ValueError, match=message):
            function(**rest)
    with pytest.raises(ValueError, match="learning_rate="):
        equilibrium_norm(0.0, 0.1, gradient_norm=1.0)
