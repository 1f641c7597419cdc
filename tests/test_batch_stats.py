"""BatchNorm's statistics, on a Flax network of two normalized layers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax import ScaleGroup, groups_from_paths, normalize
from psi_optax.batch_stats import recalibrate, rescale
from psi_optax.models.linen import MLP

GROUPS = groups_from_paths({r"hidden_\d+/kernel": ScaleGroup(0)})
FOLLOWS = {"norm_0": "hidden_0/kernel", "norm_1": "hidden_1/kernel"}
BATCHES = [
    jax.random.normal(jax.random.key(seed), (32, 12)) + 0.5 for seed in range(3)
]


@pytest.fixture(autouse=True)
def _flax_promotion():
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


def network(epsilon=1e-5, momentum=0.99):
    model = MLP((16, 8), num_classes=4, epsilon=epsilon, momentum=momentum)
    return model, model.init(jax.random.key(7), BATCHES[0], train=False)


def with_outputs(model, *, train=True):
    def apply_fn(variables, batch):
        return model.apply(
            variables, batch, train=train, mutable=["batch_stats"]
        )

    return apply_fn


def training(model, **options):
    """apply_fn, as Flax's users write it."""
    both = with_outputs(model, **options)
    return jax.jit(lambda variables, batch: both(variables, batch)[1])


@functools.cache
def calibrated(epsilon):
    model, variables = network(epsilon)
    return model, recalibrate(training(model), variables, BATCHES)


def close(a, b, **tolerance):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, **tolerance), a, b
    )


@pytest.mark.parametrize("momentum", [0.99, 0.9, 0.5, 0.0])
def test_recalibration_is_the_mean_over_batches(momentum):
    model, variables = network(momentum=momentum)
    got = recalibrate(training(model), variables, BATCHES)
    # A network of momentum 0 shows each batch's own.
    bare, _ = network(momentum=0.0)
    each = [training(bare)(variables, x)["batch_stats"] for x in BATCHES]
    mean = jax.tree.map(lambda *x: sum(x) / 3, *each)
    # The momentum is known to 1.2e-7 or two of it, its distance from 1 to as
    # much over (1 - m), and so are the statistics, of size 5 at most.
    tolerance = 2.4e-7 / (1 - momentum)
    close(got["batch_stats"], mean, rtol=tolerance, atol=tolerance)
    assert got["params"] is variables["params"]
    # The control: three running averages from the start are elsewhere.
    running = variables
    for x in BATCHES:
        running = {**variables, **training(model)(running, x)}
    with pytest.raises(AssertionError):
        close(running["batch_stats"], mean, rtol=0.01)


def test_recalibration_takes_the_collection_itself():
    model, variables = network()
    whole = training(model)
    got = recalibrate(
        lambda *args: whole(*args)["batch_stats"], variables, BATCHES
    )
    want = recalibrate(whole, variables, BATCHES)
    close(got["batch_stats"], want["batch_stats"], rtol=0)


def test_recalibration_of_evaluation():
    model, variables = network()
    with pytest.raises(ValueError, match="'norm_0/mean'.*training mode"):
        recalibrate(training(model, train=False), variables, BATCHES)


def test_recalibration_of_nothing():
    model, variables = network()
    with pytest.raises(ValueError, match="batches"):
        recalibrate(training(model), variables, [])
    with pytest.raises(ValueError, match="'batch_stats'"):
        recalibrate(training(model), {"params": variables["params"]}, BATCHES)


def test_a_covariance_is_a_moment():
    old = {"covariance": jnp.eye(2)}
    batch = jnp.array([[2.0, 1.0], [1.0, 3.0]])

    def apply_fn(variables, batch):
        moved = variables["batch_stats"]["covariance"]
        return {"covariance": 0.75 * moved + 0.25 * batch}

    found = recalibrate(apply_fn, {"batch_stats": old}, [batch, 3 * batch])
    np.testing.assert_allclose(
        found["batch_stats"]["covariance"], 2 * batch, rtol=1e-6
    )
    w, whole = jnp.ones((3, 2)), ScaleGroup((0, 1))
    moved = rescale(old, w, 4 * w, whole, {"covariance": ""})
    np.testing.assert_array_equal(moved["covariance"], 16 * jnp.eye(2))
    with pytest.raises(ValueError, match="covariance"):
        rescale(old, w, 4 * w, ScaleGroup(0), {"covariance": ""})


def test_counters_stay():
    def apply_fn(variables, batch):
        old = variables["batch_stats"]
        return {
            "mean": 0.5 * old["mean"] + 0.5 * batch,
            "count": old["count"] + 1,
        }

    stats = {"mean": jnp.zeros(2), "count": jnp.array(7)}
    got = recalibrate(
        apply_fn, {"batch_stats": stats}, [jnp.ones(2), 2 * jnp.ones(2)]
    )
    assert got["batch_stats"]["mean"].tolist() == [1.5, 1.5]
    assert got["batch_stats"]["count"] == 7


# Rescaling.


def evaluate(model, params, stats):
    return _evaluate(model, {"params": params, "batch_stats": stats})


@functools.partial(jax.jit, static_argnums=0)
def _evaluate(model, variables):
    return model.apply(variables, BATCHES[0], train=False)


def by_powers_of_two(params):
    """Each filter by another one, from 2^-20 to 2^20."""
    factors = {"hidden_0": jnp.arange(16) * 8 % 41 - 20}
    factors["hidden_1"] = jnp.arange(8) * 11 % 41 - 20
    return {
        name: {"kernel": jnp.ldexp(layer["kernel"], factors[name])}
        if name in factors
        else layer
        for name, layer in params.items()
    }


def test_powers_of_two_leave_every_bit_of_the_logits():
    model, variables = calibrated(0.0)
    old, stats = variables["params"], variables["batch_stats"]
    new = by_powers_of_two(old)
    logits = evaluate(model, old, stats)
    assert np.ptp(logits) > 1
    rescaled = rescale(stats, old, new, GROUPS, FOLLOWS)
    np.testing.assert_array_equal(evaluate(model, new, rescaled), logits)
    # The controls: statistics that do not follow, or only those of one layer.
    for kept in stats, {**rescaled, "norm_1": stats["norm_1"]}:
        assert np.abs(evaluate(model, new, kept) - logits).max() > 0.1


def test_normalized_weights_evaluate_as_before():
    model, variables = calibrated(1e-5)
    old, stats = variables["params"], variables["batch_stats"]
    new = normalize(old, GROUPS, 0.5)
    rescaled = rescale(stats, old, new, GROUPS, FOLLOWS)
    logits = evaluate(model, old, stats)
    # Variances, of 0.05 or more after rescaling, are off by the epsilon of
    # 1e-5 then and by a tenth of it before: 1e-4 of their roots, twice; the
    # logits are 3 at most.
    least = min(x.min() for x in jax.tree.leaves(_variances(rescaled)))
    assert least > 0.05
    np.testing.assert_allclose(
        evaluate(model, new, rescaled), logits, atol=6e-4
    )
    assert np.abs(logits).max() < 3
    # The control.
    assert np.abs(evaluate(model, new, stats) - logits).max() > 0.1


def _variances(stats):
    return {name: layer["var"] for name, layer in stats.items()}


def test_one_group_for_a_whole_layer():
    stats = {"norm": {"mean": jnp.ones(2), "var": jnp.ones(2)}}
    old = {"k": jnp.ones((3, 2))}
    new = {"k": 4 * old["k"]}
    got = rescale(
        stats, old, new, {"k": ScaleGroup((0, 1))}, {"norm/mean": "k"}
    )
    assert got["norm"]["mean"].tolist() == [4, 4]
    assert got["norm"]["var"].tolist() == [1, 1]


def test_a_zero_filter_keeps_its_statistics():
    stats = {"mean": jnp.ones(2), "var": jnp.ones(2)}
    old = {"k": jnp.array([[1.0, 0.0]])}
    got = rescale(
        stats, old, {"k": 2 * old["k"]}, {"k": ScaleGroup(0)}, {"": "k"}
    )
    assert got["var"].tolist() == [4, 1]


@pytest.mark.parametrize(
    ("stats", "follows", "message"),
    [
        ({"n": {"mean": np.ones(2)}}, {"m": "k"}, "'m'.*n/mean"),
        ({"n": {"mean": np.ones(2)}}, {"n": "o"}, "'o'.* k"),
        ({"n": {"scale": np.ones(2)}}, {"n": "k"}, "'n/scale'.*mean.*var"),
        ({"n": {"mean": np.ones(3)}}, {"n": "k"}, r"'n/mean'.*'k'.*\(2,\)"),
        ({"n": {"mean": np.ones(())}}, {"n": "k"}, "has groups of shape"),
    ],
)
def test_what_does_not_fit(stats, follows, message):
    params = {"k": np.ones((4, 2)), "o": np.ones(2)}
    groups = {"k": ScaleGroup(0), "o": None}
    with pytest.raises(ValueError, match=message):
        rescale(stats, params, params, groups, follows)


def test_statistics_that_follow_a_normalization_too():
    # Groups of norm_0's scale and bias as well, as the finder reports them:
    # rescaled, they multiply the inputs of the next layer.
    model, variables = calibrated(0.0)
    old, stats = variables["params"], variables["batch_stats"]
    groups = groups_from_paths(
        {
            r"hidden_\d+/kernel": ScaleGroup(0),
            r"norm_0/\w+": ScaleGroup(0, tie="norm_0"),
        }
    )
    new = by_powers_of_two(old)
    new["norm_0"] = jax.tree.map(lambda x: 4 * x, old["norm_0"])
    follows = {
        "norm_0": "hidden_0/kernel",
        "norm_1": ["hidden_1/kernel", "norm_0/scale"],
    }
    logits = evaluate(model, old, stats)
    rescaled = rescale(stats, old, new, groups, follows)
    np.testing.assert_array_equal(evaluate(model, new, rescaled), logits)
    alone = rescale(stats, old, new, groups, FOLLOWS)
    assert np.abs(evaluate(model, new, alone) - logits).max() > 0.1


@pytest.mark.parametrize("order", [1, -1])
def test_the_longest_path_says_what_statistics_follow(order):
    old = {"k": np.ones((3, 2)), "inner": np.ones((3, 2))}
    new = {"k": 2 * old["k"], "inner": 4 * old["inner"]}
    stats = {"a": {"mean": np.ones(2), "b": {"mean": np.ones(2)}}}
    follows = dict([("a", "k"), ("a/b", "inner")][::order])
    groups = dict.fromkeys(old, ScaleGroup(0))
    rescaled = rescale(stats, old, new, groups, follows)
    assert rescaled["a"]["mean"].tolist() == [2, 2]
    assert rescaled["a"]["b"]["mean"].tolist() == [4, 4]


def test_apply_fn_that_returns_outputs_too():
    model, variables = network()
    with pytest.raises(TypeError, match="apply_fn.*second"):
        recalibrate(with_outputs(model), variables, BATCHES)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_recalibration_of_narrow_statistics(dtype):
    model, variables = network()
    narrow = jax.tree.map(lambda x: x.astype(dtype), variables["batch_stats"])
    want = recalibrate(training(model), variables, BATCHES)
    got = recalibrate(
        training(model), {**variables, "batch_stats": narrow}, BATCHES
    )
    eps = float(jnp.finfo(dtype).eps)
    for x, y in zip(
        jax.tree.leaves(got["batch_stats"]),
        jax.tree.leaves(want["batch_stats"]),
        strict=True,
    ):
        assert x.dtype == dtype
        # Rounded once, to half of eps, from what float32 gets to 2.4e-5.
        np.testing.assert_allclose(
            x.astype(jnp.float32), y, rtol=eps, atol=5e-5
        )


def test_statistics_that_are_no_running_means():
    # As spectral normalization keeps: they stay, and are shown to the network.
    def apply_fn(variables, batch):
        old = variables["batch_stats"]
        assert float(old["sigma"]) == 3.0
        mean = 0.5 * old["mean"] + 0.5 * old["sigma"] * batch
        return {"mean": mean, "sigma": old["sigma"] + 1}

    stats = {"mean": jnp.zeros(2), "sigma": jnp.array(3.0)}
    got = recalibrate(apply_fn, {"batch_stats": stats}, [jnp.ones(2)])
    assert got["batch_stats"]["mean"].tolist() == [3.0, 3.0]
    assert float(got["batch_stats"]["sigma"]) == 3.0
