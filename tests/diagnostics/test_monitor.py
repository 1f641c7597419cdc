"""monitor_groups: what it sees, that it changes nothing, and what it costs."""

import builtins

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from psi_optax import ScaleGroup, psi_sgd
from psi_optax.diagnostics import (
    monitor_groups,
    plot_monitor,
    read_monitor,
)
from tests.compilation import needs_bounded_memory
from tests.conformance.checks import assert_equal, one_step
from tests.registry import GROUPS, draw

FIELDS = ["rotation", "norm_min", "norm_max", "radial_fraction"]


def group_matrix(tree):
    """What `GROUPS` say, in numpy: name to (groups, weights of each)."""
    tree = jax.tree.map(lambda x: np.asarray(x, np.float64), tree)
    hidden = tree["hidden"]
    blocks = tree["blocks"].reshape(3, 2, 4).transpose(1, 0, 2)
    return {
        "blocks": blocks.reshape(2, 12),
        "hidden/bias": np.vstack([hidden["kernel"], hidden["bias"]]).T,
        "vector": tree["vector"][None],
    }


def expected(params, updates):
    seen = {}
    w_of, u_of = group_matrix(params), group_matrix(updates)
    for name, w in w_of.items():
        u = u_of[name]
        norms = np.linalg.norm(w, axis=1)
        moved = np.linalg.norm(w + u, axis=1)
        angle = np.arccos((w * (w + u)).sum(1) / norms / moved)
        radial = (w * u).sum(1) / norms
        seen |= {
            f"rotation/{name}": np.sqrt((angle**2).mean()),
            f"norm_min/{name}": norms.min(),
            f"norm_max/{name}": norms.max(),
            f"radial_fraction/{name}": np.linalg.norm(radial)
            / np.linalg.norm(u),
        }
    return seen


def test_what_it_sees():
    params, updates = draw(0), jax.tree.map(lambda x: 0.3 * x, draw(1))
    _, state = one_step(monitor_groups(GROUPS), params, updates)
    seen = read_monitor(state)
    wanted = expected(params, updates)
    assert seen.keys() == wanted.keys()
    for key, value in wanted.items():
        # Sums of 24 products at most, roots and quotients, in float32.
        np.testing.assert_allclose(seen[key], value, rtol=3e-6, err_msg=key)
    # The control: other updates are seen to be others.
    _, state = one_step(monitor_groups(GROUPS), params, draw(2))
    other = read_monitor(state)
    for key in wanted:
        assert (other[key] == seen[key]) == key.startswith("norm"), key


@pytest.mark.parametrize("degree", [-1, 0, 1])
def test_effective_rate_of_a_schedule(degree):
    schedule = optax.linear_schedule(0.5, 0.1, 2)
    tx = monitor_groups(
        {"w": ScaleGroup(0)}, learning_rate=schedule, degree=degree
    )
    w = {"w": jnp.array([[3.0, 1.0], [4.0, 0.0]])}
    state = tx.init(w)
    for rate in [0.5, 0.3, 0.1]:
        _, state = tx.update(w, state, w)
        mean = rate * (5.0 ** (degree - 1) + 1) / 2
        seen = read_monitor(state)["effective_learning_rate/w"]
        np.testing.assert_allclose(seen, mean, rtol=1e-6)
    assert state.count == 3


def test_nothing_is_changed():
    tx = optax.chain(psi_sgd(0.1, GROUPS, momentum=0.9), monitor_groups(GROUPS))
    plain = psi_sgd(0.1, GROUPS, momentum=0.9)
    params, gradient = draw(0), draw(1)
    updates, _ = jax.jit(tx.update)(gradient, tx.init(params), params)
    want, _ = jax.jit(plain.update)(gradient, plain.init(params), params)
    assert_equal(updates, want)
    # Alone as well, whatever the updates are.
    odd = jax.tree.map(jnp.copy, gradient)
    odd["vector"] = jnp.array([jnp.nan, jnp.inf, -0.0, 1e-45, 1.0])
    passed, _ = one_step(monitor_groups(GROUPS), gradient=odd)
    for ours, given in zip(
        jax.tree.leaves(passed), jax.tree.leaves(odd), strict=True
    ):
        np.testing.assert_array_equal(
            np.asarray(ours).view(np.uint32), np.asarray(given).view(np.uint32)
        )


def test_zero_updates_and_zero_weights():
    group = {"w": ScaleGroup(0)}
    w, zero = {"w": jnp.ones((3, 2))}, {"w": jnp.zeros((3, 2))}
    seen = read_monitor(one_step(monitor_groups(group), w, zero)[1])
    assert seen["rotation/w"] == seen["radial_fraction/w"] == 0
    seen = read_monitor(one_step(monitor_groups(group), zero, zero)[1])
    assert not any(seen.values())


def test_radial_updates():
    group = {"w": ScaleGroup(0)}
    w = {"w": jax.random.normal(jax.random.key(0), (64, 8))}
    halved = jax.tree.map(lambda x: -0.5 * x, w)
    seen = read_monitor(one_step(monitor_groups(group), w, halved)[1])
    # |u|^2 - <v, u>^2 is what rounding leaves, some 6e-8 of |u|^2, and the
    # angle its root, 3e-4 of it, with |u| as long as what is left of w.
    assert seen["rotation/w"] < 1e-3
    np.testing.assert_allclose(seen["radial_fraction/w"], 1, rtol=1e-6)


def test_no_group_at_all():
    for groups in [None, {"w": None}]:
        tx = monitor_groups(groups, learning_rate=0.1, degree=1)
        updates, state = one_step(tx, {"w": jnp.ones(3)}, {"w": jnp.ones(3)})
        assert updates["w"].tolist() == [1, 1, 1]
        assert state.count == 1
        assert read_monitor(state) == {}


def test_an_empty_leaf():
    tx = monitor_groups({"w": ScaleGroup(0)}, learning_rate=0.1, degree=1)
    w = {"w": jnp.ones((3, 0))}
    assert not any(read_monitor(one_step(tx, w, w)[1]).values())


def test_optax_tree_get():
    tx = optax.chain(optax.sgd(0.1), monitor_groups(GROUPS))
    _, state = one_step(tx)
    assert set(optax.tree.get(state, "rotation")) == {
        "blocks",
        "hidden/bias",
        "vector",
    }


def sgd_and_monitor(learning_rate):
    return optax.chain(
        optax.sgd(learning_rate),
        monitor_groups({"w": ScaleGroup(0), "o": None}),
    )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda: optax.inject_hyperparams(sgd_and_monitor)(0.1),
        lambda: optax.MultiSteps(sgd_and_monitor(0.1), 1),
        lambda: optax.masked(sgd_and_monitor(0.1), {"w": True, "o": False}),
        lambda: optax.partition(
            {"a": sgd_and_monitor(0.1), "b": optax.sgd(0.1)},
            {"w": "a", "o": "b"},
        ),
        lambda: optax.named_chain(("ours", sgd_and_monitor(0.1))),
        lambda: optax.apply_if_finite(sgd_and_monitor(0.1), 3),
    ],
    ids=["inject", "multi", "masked", "partition", "named", "finite"],
)
def test_found_in_wrappers(wrap):
    params = {"w": jnp.array([3.0, 4.0]), "o": jnp.ones(2)}
    gradient = {"w": jnp.array([-4.0, 3.0]), "o": jnp.ones(2)}
    with jax.numpy_dtype_promotion("standard"):  # as MultiSteps needs
        _, state = one_step(wrap(), params, gradient)
    seen = read_monitor(state)
    assert set(seen) == {f"{field}/w" for field in FIELDS}
    # sgd turns by arctan(0.1), a float32 of 0.1 and an arctangent.
    np.testing.assert_allclose(seen["rotation/w"], np.arctan(0.1), rtol=1e-6)


def test_errors():
    with pytest.raises(ValueError, match="monitor_groups"):
        read_monitor(optax.sgd(0.1, 0.9).init(jnp.ones(2)))
    twice = optax.chain(monitor_groups(GROUPS), monitor_groups(GROUPS))
    with pytest.raises(ValueError, match="'norm_max/blocks'"):
        read_monitor(twice.init(draw(0)))


@needs_bounded_memory
def test_its_inner_products_keep_nothing_of_the_size_of_a_leaf():
    w = jnp.zeros((512, 256))
    tx = monitor_groups({"w": ScaleGroup(0)}, learning_rate=0.1, degree=-1)

    def look(params, updates, state):
        return tx.update({"w": updates}, state, {"w": params})[1]

    assert _room(look, w, w, tx.init({"w": w})) < w.nbytes / 16
    # The control: what looks at the squares twice keeps them.
    assert _room(_norms_and_their_sum, w) >= w.nbytes


def _norms_and_their_sum(x):
    square = (x**2).sum(0)
    return square, square.sum()


@needs_bounded_memory
def test_a_step_in_place_needs_one_copy_of_the_updates():
    w = {"w": jnp.zeros((512, 256))}
    groups = {"w": ScaleGroup(0)}
    tx = optax.chain(psi_sgd(0.1, groups), monitor_groups(groups))

    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    # Without the barrier there are two: of the weights as well.
    room = _room(step, w, tx.init(w), w, donate_argnums=(0, 1))
    assert room < 1.5 * w["w"].nbytes


def _room(function, *args, **options):
    """Bytes that a compiled function needs beside its arguments."""
    compiled = jax.jit(function, **options).lower(*args).compile()
    return compiled.memory_analysis().temp_size_in_bytes


# Pictures.


def test_plot():
    history = [
        {"rotation/a": 0.1, "rotation/b": 0.2, "norm_min/a": 1.0},
        {"rotation/a": 0.3, "rotation/b": 0.1, "norm_min/a": 2.0},
    ]
    figure = plot_monitor(history)
    top, bottom = figure.axes
    assert [top.get_ylabel(), bottom.get_ylabel()] == ["rotation", "norm_min"]
    lines = {line.get_label(): list(line.get_ydata()) for line in top.lines}
    assert lines == {"a": [0.1, 0.3], "b": [0.2, 0.1]}
    assert [text.get_text() for text in top.get_legend().get_texts()] == [
        "a",
        "b",
    ]


def test_plot_of_nothing():
    with pytest.raises(ValueError, match="history.*opt_state"):
        plot_monitor([])
    with pytest.raises(ValueError, match=r"history\[1\]"):
        plot_monitor([{"rotation/a": 0.1}, {"rotation/b": 0.1}])


def test_plot_without_matplotlib(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        plot_monitor([{"rotation/a": 0.1}])


def test_a_state_of_several_seeds_is_to_be_indexed():
    tx = monitor_groups(ScaleGroup(0))
    w = jnp.ones((3, 2))
    state = jax.vmap(lambda w: tx.update(w, tx.init(w), w)[1])(w)
    with pytest.raises(ValueError, match=r"jax\.tree\.map"):
        read_monitor(state)
    assert "rotation/" in read_monitor(jax.tree.map(lambda x: x[0], state))


def test_a_group_of_norm_zero_has_no_rotation():
    tx = monitor_groups(ScaleGroup(0))
    w = jnp.array([[3.0, 0.0], [4.0, 0.0]])
    u = jnp.array([[-4.0, 1.0], [3.0, 0.0]])
    seen = read_monitor(tx.update(u, tx.init(w), w)[1])
    np.testing.assert_allclose(seen["rotation/"], np.pi / 4, rtol=1e-6)
    assert seen["norm_min/"] == 0
