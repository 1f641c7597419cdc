"""Proved groups are checked with numbers, and stated groups as well."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax import ScaleGroup, check_groups, find_groups
from tests.invariance.test_fuzzer import FAULTS
from tests.invariance.traps import with_derivative

X = jax.random.normal(jax.random.key(0), (16, 6))
Y = jax.random.normal(jax.random.key(1), (16, 4))
W = jax.random.normal(jax.random.key(2), (6, 4))
SEEDS = range(8)


# -- old faults, put back, are contradicted -------------------------------


def norm(h):
    return (h - h.mean(0, keepdims=True)) / h.std(0, keepdims=True)


def penalized(params, x):
    total = jax.new_ref(jnp.zeros(()))
    total[...] += jnp.sum(params["w"] ** 2)
    return jnp.sum(jnp.tanh(norm(x @ params["w"])) * Y) + total[...]


def cached(params, x):
    cache = jax.new_ref(jnp.zeros((16, 4)))
    cache[...] = x @ params["w"]
    return jnp.sum((jax.nn.softmax(cache[...] @ cache[...].T) @ Y) ** 2)


STEP = jnp.zeros((), jnp.int32)


def annealed(params, x):
    weight = jnp.minimum(STEP.astype(jnp.float32) / 1000, 1.0)
    penalty = weight * jnp.sum(params["w"] ** 2)
    return jnp.sum(jnp.tanh(norm(x @ params["w"])) * Y) + penalty


straight = with_derivative(jnp.sign, lambda g, w: (g,))
around = with_derivative(lambda h, w: h, lambda g, h, w: (g, g[:6]))


def binary(params, x):
    return jnp.sum(jnp.tanh(x @ straight(params["w"])) ** 2)


def elsewhere(params, x):
    return jnp.sum(jnp.tanh(around(x[:, :4], 2 * params["w"])) ** 3)


LOSSES = {
    "writes to refs are dropped": (penalized, cached),
    "what is closed over is constant": (annealed,),
    "derivatives are those of values": (binary,),
    "gradients go where values do": (elsewhere,),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_is_put_back_raises_by_default(fault, monkeypatch):
    with jax.numpy_rank_promotion("allow"):
        for loss in LOSSES[fault]:
            assert find_groups(loss, {"w": W}, X)["w"].kind == "ordinary"
        where, name, wrong = FAULTS[fault]
        monkeypatch.setattr(where, name, wrong)
        for loss in LOSSES[fault]:
            with pytest.raises(RuntimeError, match="'w'"):
                find_groups(loss, {"w": W}, X)


# -- what is closed over is data ------------------------------------------


def test_a_gate_that_is_zero_now_is_data():
    gate = jnp.zeros((1, 1))

    def loss(params, x, gate):
        penalty = jnp.sum(gate) * jnp.sum(params["w"] ** 2)
        return jnp.sum(jnp.tanh(norm(x @ params["w"])) * Y) + penalty

    with jax.numpy_rank_promotion("allow"):
        for method in ("analysis", "both"):
            closed = find_groups(
                lambda p, x: loss(p, x, gate), {"w": W}, X, method=method
            )
            given = find_groups(loss, {"w": W}, X, gate, method=method)
            assert closed["w"].kind == given["w"].kind == "ordinary"
            # The control: a number that is written is a part of the program.
            for zero in (0.0, np.zeros((), np.float32)):
                written = find_groups(
                    lambda p, x, z=zero: loss(p, x, z),
                    {"w": W},
                    X,
                    method=method,
                )
                assert written["w"].group is not None


# -- bounds on norms ------------------------------------------------------


def bounded(joint, bound):
    def loss(params):
        w = params["w"]
        axis = None if joint else 0
        size = jnp.linalg.norm(w, axis=axis, keepdims=True)
        return jnp.sum(jnp.tanh(X @ (w / bound(size))) * Y)

    return loss


def of_size(joint, size):
    axis = None if joint else 0
    w = W / jnp.linalg.norm(W, axis=axis, keepdims=True)
    return {"w": size * w}


def at_least_one(size):
    return jnp.maximum(size, 1.0)


def at_most_one(size):
    return jnp.minimum(size, 1.0)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize(
    ("bound", "sizes"),
    [(at_least_one, (1.3, 1.6, 4.0)), (at_most_one, (0.7, 0.3))],
)
def test_a_bound_on_norms_is_refused_by_every_seed(joint, bound, sizes):
    groups = {"w": ScaleGroup((0, 1) if joint else 0)}
    loss = bounded(joint, bound)
    for size in sizes:
        for seed in SEEDS if size == sizes[0] else (0, 1):
            params = of_size(joint, size)
            with pytest.raises(ValueError, match="'w' of shape"):
                check_groups(loss, params, groups, seed=seed)
            report = find_groups(loss, params, method="probe", seed=seed)
            assert report["w"].kind == "ordinary", (size, seed)


@pytest.mark.parametrize("joint", [False, True])
def test_what_has_no_bound_passes_with_every_seed(joint):
    """Nor does a guard of norms that are far from it count."""
    groups = {"w": ScaleGroup((0, 1) if joint else 0)}
    for bound in (lambda size: size, lambda size: jnp.maximum(size, 1e-6)):
        loss, params = bounded(joint, bound), of_size(joint, 1.3)
        for seed in SEEDS:
            assert check_groups(loss, params, groups, seed=seed)
        assert find_groups(loss, params, method="probe")["w"].kind == "measured"


def test_an_epsilon_is_no_bound():
    def loss(params):
        h = X @ params["w"]
        h = (h - h.mean(0)[None]) / jnp.sqrt(h.var(0)[None] + 1e-5)
        return jnp.sum(jnp.tanh(h) * Y)

    groups = {"w": ScaleGroup(0)}
    for seed in SEEDS:
        assert check_groups(loss, {"w": W}, groups, seed=seed)
    assert find_groups(loss, {"w": W}, method="probe")["w"].kind == "measured"
    with pytest.raises(ValueError, match="normalize"):
        check_groups(loss, {"w": W / 300}, groups)


def test_where_rounding_decides_nothing_is_contradicted():
    """A layer without a signal, whose variance is rounding and an epsilon."""

    def norm(h):
        return (h - h.mean(0)[None]) / jnp.sqrt(h.var(0)[None] + 1e-5)

    def loss(params):
        h = jax.nn.relu(norm(X @ params["w"]) + params["b"][None])
        for path in ("w1", "w2"):
            h = jax.nn.relu(norm(h @ params[path]) + params["c"][None])
        return jnp.sum(h * Y)

    square = jax.random.normal(jax.random.key(3), (2, 4, 4))
    params = {"w": W, "w1": square[0], "w2": square[1], "c": jnp.ones(4)}
    for shift in (-9.0, 0.0):
        params["b"] = jnp.full(4, shift)
        for seed in range(3):
            report = find_groups(loss, params, seed=seed)
            assert report["w"].group == report["w2"].group == ScaleGroup(0)

    # The control: with a signal, a penalty is contradicted.
    def penalized(params):
        return loss(params) + 1e-6 * jnp.sum(params["w"] ** 2)

    groups = dict.fromkeys(params) | {"w": ScaleGroup(0)}
    assert check_groups(loss, params, groups)
    with pytest.raises(ValueError, match="'w' of shape"):
        check_groups(penalized, params, groups)


def test_an_effect_of_an_epsilon_may_pass_through_zero():
    """The change of a scalar loss need not grow at each halving."""
    key = jax.random.key
    x, w = (
        jax.random.normal(key(1), (32, 6)),
        jax.random.normal(key(0), (6, 16)),
    )
    head = jax.random.normal(key(2), (16, 3))

    def loss(params):
        h = x @ params["w"]
        h = (h - h.mean(0)[None]) / jnp.sqrt(h.var(0)[None] + 1e-5)
        return -jnp.mean(jax.nn.log_softmax(jax.nn.relu(h) @ head)[:, 0])

    for seed in range(8):  # With the seventh it does not.
        assert check_groups(loss, {"w": w}, {"w": ScaleGroup(0)}, seed=seed)


# -- devices --------------------------------------------------------------


@pytest.mark.parametrize("method", ["analysis", "probe", "both"])
def test_nothing_is_transferred_without_a_word(method):
    def loss(params, x):
        return jnp.sum(jnp.tanh(norm(x @ params["w"])) * Y)

    with jax.numpy_rank_promotion("allow"):
        expected = find_groups(loss, {"w": W}, X, method=method)
        with jax.transfer_guard("disallow"):
            report = find_groups(loss, {"w": W}, X, method=method)
    assert report == expected
    assert report["w"].group == ScaleGroup(0)
