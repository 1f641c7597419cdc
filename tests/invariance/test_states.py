"""Losses that are invariant in one state alone, such as that of a first batch.

All are bounded: with large weights alone, the scale would not show.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax import ScaleGroup, check_groups, find_groups
from psi_optax.invariance.probe import data
from psi_optax.invariance.probe.evaluation import Evaluator

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (8, 5))
P = jax.random.normal(KEY, (5, 4))
GROUP = ScaleGroup(0)


def unproved(square):
    """Return the root of a square, by a logarithm that ends the analysis."""
    return jnp.exp(0.5 * jnp.log(square))


def one(square):
    return jnp.ones_like(square)


def loss_in(is_given, other):
    """Return a loss that is invariant in a state, with a norm in the other."""

    def loss(p, x, *states):
        square = jnp.sum(p * p, 0, keepdims=True)
        given = is_given(*states)
        norm = jnp.where(given, jnp.sqrt(square), other(square))
        return jnp.mean(jnp.tanh((x @ p) / norm))

    return loss


def is_set(state):
    return jnp.all(state)


def below(threshold):
    return lambda state: jnp.all(state < threshold)


# An epoch, a warm-up; several counters of an ensemble; counters of any dtype.
STATES = {
    "a flag": (is_set, jnp.array(True)),
    "a flag of NumPy": (is_set, np.bool_(True)),
    "flags": (is_set, jnp.ones(3, bool)),
    "an integer": (below(1), jnp.int32(0)),
    "a number of NumPy": (below(1), np.int32(0)),
    "without a sign": (below(1), jnp.uint32(0)),
    "a weak type": (below(1), jnp.asarray(0)),
    "one byte": (below(100), jnp.int8(7)),
    "integers": (below(1), jnp.full(4, 0)),
    "an epoch": (below(1_000), jnp.int32(0)),
    "a warm-up": (below(100_000), jnp.uint32(3)),
    "a float": (below(1), jnp.float32(0)),
    "a float of many steps": (below(1_000), jnp.float32(20)),
    "floats": (below(1), jnp.zeros(8)),
}


@pytest.mark.parametrize("name", STATES)
def test_a_scale_in_another_state_is_seen(name):
    is_given, state = STATES[name]
    report = find_groups(loss_in(is_given, one), P, X, state)
    assert report[""].kind == "ordinary"
    report = find_groups(loss_in(is_given, unproved), P, X, state)
    assert (report[""].kind, report[""].group) == ("measured", GROUP)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_a_state_that_the_loss_closes_over_is_one(wrap):
    def kind(other):
        first, loss = jnp.array(True), loss_in(is_set, other)
        jitted = wrap(lambda p, x: loss(p, x, first))
        return find_groups(lambda p, x: wrap(jitted)(p, x), P, X)[""].kind

    assert kind(one) == "ordinary"
    assert kind(unproved) == "measured"


def test_a_state_within_a_jitted_part_of_a_loop_is_not_tried():
    def report(wrap):
        first, loss = jnp.array(True), loss_in(is_set, unproved)
        part = wrap(lambda p, x: loss(p, x, first))

        def looped(p, x):
            def body(carry, _):
                return carry + part(p, x), None

            zero = jnp.zeros((), jnp.result_type(p))
            return jax.lax.scan(body, zero, None, length=2)[0]

        return find_groups(looped, P, X)[""]

    assert report(jax.jit).kind == "ordinary"
    assert "not measured" in report(jax.jit).reason
    assert report(lambda f: f).kind == "measured"


def test_stated_groups_are_checked_in_other_states():
    with pytest.raises(ValueError, match="flags, counters"):
        check_groups(loss_in(is_set, one), P, GROUP, X, jnp.array(True))
    loss = loss_in(is_set, unproved)
    # Both norms are exact, but for rounding in double precision.
    assert check_groups(loss, P, GROUP, X, jnp.array(True))[""].deviation < 1e-9


@pytest.mark.parametrize("others", [0, 4])
def test_one_state_does_not_hide_another(others):
    def is_given(first, enabled, *_):
        return first | ~enabled

    states = [jnp.array(True)] * 2 + [jnp.uint32(0)] * others
    report = find_groups(loss_in(is_given, one), P, X, *states)
    assert report[""].kind == "ordinary"
    report = find_groups(loss_in(is_given, unproved), P, X, *states)
    assert report[""].kind == "measured"


@pytest.mark.parametrize("running", [jnp.zeros(4), jnp.ones(4)])
def test_running_averages_stay_variances(running):
    """Those below zero have no root, and nothing would be measured."""

    def loss(p, x, count, running, other):
        h = x @ p
        h = h - jnp.mean(h, 0, keepdims=True)
        square = jnp.mean(h * h, 0)
        variance = jnp.where(count < 1, square, other(square, running))
        return jnp.mean(jax.nn.relu(h / jnp.sqrt(variance + 1e-5)[None]))

    def kind(other):
        def one(p, x, count, running):
            return loss(p, x, count, running, other)

        return find_groups(one, P, X, jnp.int32(0), running)[""].kind

    assert kind(lambda square, running: running) == "ordinary"
    # The control: of the batch, in every state.
    batch = kind(lambda square, running: jnp.exp(jnp.log(square)))
    assert batch == "measured"


def test_without_another_finite_state_nothing_is_measured():
    def nan(square):
        return jnp.log(-square)

    loss, first = loss_in(is_set, nan), jnp.array(True)
    report = find_groups(loss, P, X, first)
    assert report[""].kind == "ordinary"
    assert "not finite" in report[""].reason
    assert "not finite" in str(check_groups(loss, P, GROUP, X, first))
    # The control: with a finite one.
    report = check_groups(loss_in(is_set, unproved), P, GROUP, X, first)
    assert "not finite" not in str(report)


@pytest.mark.parametrize("fill", [0, 9])
def test_indices_and_masks_stay_within_bounds(fill):
    """All of one label, beside the first or the last of ten; a full mask."""

    def loss(p, x, labels, mask):
        norm = unproved(jnp.sum(p * p, 0, keepdims=True))
        y = jnp.tanh((x @ p) / norm) @ jnp.ones((4, 10))
        scores = jnp.where(mask[None], y, -jnp.inf)
        taken = jnp.take_along_axis(
            jax.nn.softmax(scores), labels[:, None], 1, mode="fill"
        )
        return jnp.mean(taken) + jnp.mean(y)

    labels, mask = jnp.full(8, fill), jnp.ones(10, bool)
    report = find_groups(loss, P, X, labels, mask)
    assert report[""].kind == "measured"


# -- networks ------------------------------------------------------------------


class Net(eqx.Module):
    lin: eqx.nn.Linear
    norm: eqx.nn.BatchNorm

    def __init__(self, key):
        self.lin = eqx.nn.Linear(5, 4, key=key)
        self.norm = eqx.nn.BatchNorm(4, axis_name="batch", mode="ema")

    def __call__(self, x, state):
        y, state = self.norm(self.lin(x), state)
        return jnp.tanh(y), state


def forward(model, state, x):
    y, state = jax.vmap(
        model, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )(x, state)
    return jnp.mean(y**2 * jnp.arange(1.0, 5.0)), state


@pytest.fixture
def _promotion():
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


@pytest.mark.usefixtures("_promotion")
def test_the_first_step_of_a_network_is_no_other():
    """After the first batch, running averages normalize."""
    model, state = eqx.nn.make_with_state(Net)(KEY)
    report = find_groups(forward, model, state, X, has_aux=True)
    assert report["lin/weight"].kind == "ordinary"
    assert report["lin/bias"].kind == "ordinary"

    def ensemble(models, states, x):
        axes = (eqx.if_array(0), eqx.if_array(0), None)
        mapped = eqx.filter_vmap(forward, in_axes=axes)
        losses, states = mapped(models, states, x)
        return jnp.sum(losses), states

    keys = jax.random.split(KEY, 3)
    models, states = eqx.filter_vmap(eqx.nn.make_with_state(Net))(keys)
    report = find_groups(ensemble, models, states, X, has_aux=True)
    assert report["lin/weight"].kind == "ordinary"
    assert report["lin/bias"].kind == "ordinary"


# -- data ----------------------------------------------------------------------


def test_inputs_and_keys_are_no_states():
    states = [np.zeros(3), np.ones((), bool), np.full((2, 2), 7, "u4")]
    assert all(map(data.kind_of, states))
    others = [
        KEY,
        jax.random.PRNGKey(0),
        np.arange(3),
        np.arange(3.0),
        np.full(3, np.inf),
        np.full(3, np.nan),
        np.zeros(0),
        np.zeros(3, complex),
        "text",
    ]
    assert not any(map(data.kind_of, others))


@pytest.mark.parametrize("value", [0.0, 1e-5, 1.0, -2.0])
def test_other_states_have_the_sign_and_the_size(value):
    """An epsilon stays small: within five deviations of 0.3 of itself."""
    held = np.full(100, value, "f4")
    moved = data.move_state(held, np.random.default_rng(0))
    assert moved.dtype == held.dtype
    assert not np.any(moved == held)
    assert np.all(moved * value >= 0)
    assert np.all(moved >= 0) or value < 0
    assert np.all(abs(moved) < 2.5 * abs(value)) or not value


@pytest.mark.parametrize("state", [jnp.zeros(4), jnp.uint32(0), jnp.asarray(0)])
def test_states_cost_little_beside_a_proof(state, monkeypatch):
    """One point and four rescalings, and no compilation."""
    calls, compiled = [], []

    def call(self, *args):
        calls.append(args)
        return original(self, *args)

    def compile_(self, paths):
        compiled.append(compile_original(self, paths))
        return compiled[-1]

    original, compile_original = Evaluator.__call__, Evaluator._compile
    monkeypatch.setattr(Evaluator, "__call__", call)
    monkeypatch.setattr(Evaluator, "_compile", compile_)
    loss = loss_in(lambda *_: jnp.array(True), jnp.sqrt)
    assert find_groups(loss, P, X)[""].kind == "proved"
    before = len(calls)
    assert find_groups(loss, P, X, state)[""].kind == "proved"
    assert len(calls) == 2 * before + 5
    assert [f._cache_size() for f in compiled] == [1, 1]
