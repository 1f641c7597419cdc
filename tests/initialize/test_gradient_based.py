"""gradient_initialization: the loss after a step of any optimizer."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from psi_optax import ScaleGroup, psi_sgd
from psi_optax.initialize import gradient_initialization
from tests.initialize.networks import data, loss, normalized_loss, start

pytestmark = pytest.mark.usefixtures("x64", "optax_promotion")


def pair(seed):
    """Return two batches that share half of their examples."""
    x, labels = map(np.asarray, data())
    first, second = np.random.RandomState(seed).randint(0, len(x), (2, 64))
    second[:32] = first[:32]
    return (x[first], labels[first]), (x[second], labels[second])


def batches():
    return map(pair, itertools.count())


def after_step(params, tx, batches, loss_fn=loss):
    """Return the loss of the second batch after a step on the first."""
    first, second = batches
    gradient = jax.grad(loss_fn)(params, *first)
    updates, _ = tx.update(gradient, tx.init(params), params)
    return loss_fn(optax.apply_updates(params, updates), *second)


def trained(params, tx, steps=40):
    state = tx.init(params)

    @jax.jit
    def step(params, state):
        gradient = jax.grad(loss)(params, *data())
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
    return float(loss(params, *data()))


CASES = {
    "sgd": (optax.sgd(0.1), {"max_gradient_norm": 5.0}),
    "momentum": (optax.sgd(0.05, 0.9), {"max_gradient_norm": 5.0}),
    "signs": (optax.sign_sgd(3e-3), {"order": 1}),
    "adam": (optax.adam(3e-3, eps_root=1e-8), {}),
    "detached": (optax.adam(3e-3), {"detach": True}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_loss_after_a_step_is_smaller(name):
    tx, options = CASES[name]
    params, multipliers = gradient_initialization(
        loss, start(), batches(), tx, steps=60, **options
    )
    others = pair(999)
    loss_after = jax.jit(lambda params: after_step(params, tx, others))
    lower, middle = loss_after(params), loss_after(start())
    assert lower < middle - 0.05
    jax.tree.map(
        np.testing.assert_array_equal,
        params,
        {path: multipliers[path] * x for path, x in start().items()},
    )
    # The control: multipliers of the opposite sense.
    wrong = {path: x / multipliers[path] for path, x in start().items()}
    assert loss_after(wrong) > middle


def test_training_arrives_lower():
    tx = optax.sgd(0.05)
    params, _ = gradient_initialization(
        loss, start(), batches(), tx, steps=60, max_gradient_norm=5.0
    )
    assert trained(params, tx) < trained(start(), tx)


def test_a_bound_lowers_the_norm():
    @jax.jit
    def norm(params):
        return optax.tree.norm(jax.grad(loss)(params, *data()))

    options = {"steps": 30, "rate": 0.02}
    tx = optax.sgd(1e-6)
    params, _ = gradient_initialization(
        loss, start(), batches(), tx, max_gradient_norm=1e-3, **options
    )
    assert norm(params) < 0.7 * norm(start())
    # A bound that is never exceeded changes no bit.
    free, _ = gradient_initialization(loss, start(), batches(), tx, **options)
    wide, _ = gradient_initialization(
        loss, start(), batches(), tx, max_gradient_norm=1e9, **options
    )
    jax.tree.map(np.testing.assert_array_equal, free, wide)
    assert norm(free) > norm(params)


def test_multipliers_of_groups_have_no_effect_with_psi():
    groups = {
        path: ScaleGroup(0) if path in ("k0", "k1", "k2") else None
        for path in start()
    }
    kernels = ("k0", "k1", "k2")

    def slopes(tx):
        def objective(multipliers):
            params = {p: multipliers[p] * x for p, x in start().items()}
            return after_step(params, tx, (data(), data()), normalized_loss)

        found = jax.jit(jax.grad(objective))({p: jnp.ones(()) for p in start()})
        return max(abs(float(found[k])) for k in kernels), abs(
            float(found["k3"])
        )

    grouped, head = slopes(psi_sgd(0.1, groups))
    assert grouped < 1e-14
    assert head > 0.01
    # Other optimizers have effective learning rates of groups to tune.
    for tx in (optax.sgd(0.1), optax.sign_sgd(0.01)):
        assert slopes(tx)[0] > 0.01

    # The loss before the step has none of them.
    def before(multipliers):
        params = {p: multipliers[p] * x for p, x in start().items()}
        return normalized_loss(params, *data())

    found = jax.jit(jax.grad(before))({p: jnp.ones(()) for p in start()})
    assert max(abs(float(found[k])) for k in kernels) < 1e-14

    _, multipliers = gradient_initialization(
        normalized_loss, start(), batches(), psi_sgd(0.1, groups), steps=10
    )
    # Adam's epsilon of 1e-8 hides slopes that are rounding errors.
    assert all(abs(float(multipliers[k]) - 1) < 1e-6 for k in kernels)
    assert abs(float(multipliers["k3"]) - 1) > 0.01


def test_adam_is_refused_at_zero_gradients():
    def rectified(params, x):
        hidden = jnp.tanh(x @ params["first"]) @ params["k"]
        hidden = jax.nn.relu(hidden + params["b"].reshape(1, -1))
        return jnp.mean((hidden.sum(axis=1) - 1) ** 2)

    def run(params, tx, **options):
        pairs = [((data()[0],), (data()[0],))] * 2
        return gradient_initialization(
            rectified, params, pairs, tx, steps=2, **options
        )

    adam = optax.adam(3e-3)
    params = {"first": start()["k0"][:, :3], "b": jnp.zeros(2)}
    params["k"] = start()["k1"][:3, :2]
    run(params, adam)
    # A unit that no example reaches has gradients of zero.
    params["b"] = params["b"].at[0].set(-1e3)
    with pytest.raises(ValueError, match=r"(?s)'first'.*sign_sgd.*eps_root"):
        run(params, adam)
    run(params, adam, detach=True)
    for other in (optax.sign_sgd(3e-3), optax.adam(3e-3, eps_root=1e-8)):
        run(params, other)


def test_a_loss_that_is_not_finite_is_not_blamed_on_the_optimizer():
    def infinite(params, x, labels):
        return loss(params, x, labels) / 0.0

    with pytest.raises(ValueError, match="is the loss finite"):
        gradient_initialization(infinite, start(), batches(), optax.sgd(0.1))


def test_the_loss_is_of_the_second_batch():
    """Here a step is none, and each batch has a best scale of its own."""

    def square(params, target):
        return (params["w"] - target) ** 2

    def found(first, second):
        pairs = [((jnp.array(first),), (jnp.array(second),))] * 20
        params, _ = gradient_initialization(
            square, {"w": jnp.ones(())}, pairs, optax.sgd(0.0), steps=20
        )
        return float(params["w"])

    assert found(0.0, 2.0) > 1.1
    assert found(2.0, 0.0) < 0.9


def test_selected_parameters_and_the_floor():
    tx = optax.sgd(0.1)
    params, multipliers = gradient_initialization(
        loss, start(), batches(), tx, select="k.", steps=3
    )
    assert set(multipliers) == {"k0", "k1", "k2", "k3"}
    np.testing.assert_array_equal(params["b1"], start()["b1"])
    assert all(float(m) != 1 for m in multipliers.values())
    # Steps of 0.01 go below 0.999, or above 1.
    assert min(map(float, multipliers.values())) < 0.999
    _, multipliers = gradient_initialization(
        loss, start(), batches(), tx, select="k.", steps=3, floor=0.999
    )
    assert min(map(float, multipliers.values())) == np.float32(0.999)


def test_trees_of_other_frameworks():
    x, labels = data()
    model = nnx.Linear(12, 5, rngs=nnx.Rngs(0))
    graph, state = nnx.split(model)

    def nnx_loss(state, x, labels):
        logits = nnx.merge(graph, state)(x)
        return optax.softmax_cross_entropy_with_integer_labels(
            logits, labels
        ).mean()

    module = linen.Dense(5)

    def linen_loss(params, x, labels):
        logits = module.apply({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(
            logits, labels
        ).mean()

    batch = (x.astype(jnp.float32), labels)
    pairs = [(batch, batch)] * 3
    tx = optax.sgd(0.1)
    found, multipliers = gradient_initialization(
        nnx_loss, state, pairs, tx, steps=3
    )
    assert jax.tree.structure(found) == jax.tree.structure(state)
    pure = nnx.to_pure_dict(state)
    _, expected = gradient_initialization(linen_loss, pure, pairs, tx, steps=3)
    assert multipliers.keys() == expected.keys() == {"kernel", "bias"}
    for path, multiplier in multipliers.items():
        # Three steps of rounding in float32.
        np.testing.assert_allclose(multiplier, expected[path], rtol=1e-6)


def test_half_precision_keeps_its_dtype():
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), start())
    x, labels = data()
    batch = (x.astype(jnp.bfloat16), labels)
    found, multipliers = gradient_initialization(
        loss, params, [(batch, batch)] * 2, optax.sgd(0.1), steps=2
    )
    assert all(x.dtype == jnp.bfloat16 for x in found.values())
    assert all(m.dtype == jnp.float32 for m in multipliers.values())


def test_errors():
    tx = optax.sgd(0.1)

    def run(*, params=None, pairs=None, tx=tx, **options):
        gradient_initialization(
            loss, params or start(), pairs or batches(), tx, **options
        )

    one = next(batches())
    with pytest.raises(ValueError, match="ended after 1 of 2 steps"):
        run(pairs=[one], steps=2)
    with pytest.raises(ValueError, match="pair of tuples"):
        run(pairs=[data()])
    with pytest.raises(ValueError, match="selects none of 'b0'"):
        run(select="kernel")
    with pytest.raises(TypeError, match=r"'n' of shape \(\)"):
        run(params={**start(), "n": jnp.zeros((), jnp.int32)})
    with pytest.raises(TypeError, match="not a gradient transformation"):
        run(tx=0.1)
    for option, value in (
        ("steps", 0),
        ("order", 3),
        ("rate", 0.0),
        ("floor", -1.0),
        ("floor", 1.0),
        ("max_gradient_norm", 0.0),
    ):
        with pytest.raises(ValueError, match=option):
            run(**{option: value})
    with pytest.raises(TypeError, match="detach"):
        run(detach=1)
