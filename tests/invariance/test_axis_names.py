"""Losses that name an axis of devices: statistics that devices share."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.lax import all_gather, axis_index, pmean, psum

from psi_optax import ScaleGroup, check_groups, find_groups
from tests.invariance.losses import arrays, total

PARAMS = arrays(w=(3, 4), b=(4,))
X = arrays(x=(6, 3))["x"]
SEQUENCES = arrays(x=(2, 6, 3))["x"]
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def _promotion():
    """Frameworks promote dtypes and ranks, as scripts do."""
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


def scaled(h, mean, variance):
    return (h - mean) / jnp.sqrt(variance + 1e-6)


def two_passes(h):
    mean = pmean(h.mean(0), "d")
    return scaled(h, mean, pmean(((h - mean) ** 2).mean(0), "d"))


def squares(h):
    mean = pmean(h.mean(0), "d")
    return scaled(h, mean, pmean((h * h).mean(0), "d") - mean**2)


def sums(h):
    count = psum(h.shape[0], "d")
    mean = psum(h.sum(0), "d") / count
    return scaled(h, mean, psum((h * h).sum(0), "d") / count - mean**2)


def gathered(h):
    every = all_gather(h, "d")
    return scaled(h, every.mean((0, 1)), every.var((0, 1)))


def unsynchronized(h):
    return scaled(h, h.mean(0), h.var(0))


def loss_of(norm):
    """Return the loss of a layer, whose value differs between devices."""

    def loss(params, x):
        h = norm(x @ params["w"] + params["b"])
        return total(jax.nn.relu(h)) * (1 + axis_index("d"))

    return loss


NORMS = [two_passes, squares, sums, gathered, unsynchronized]


def find(loss, params=PARAMS, x=X, axis_name="d", **options):
    return find_groups(loss, params, x, axis_name=axis_name, **options)


@pytest.mark.parametrize("norm", NORMS)
def test_groups_before_statistics_of_devices(norm):
    report = find(loss_of(norm))
    assert report["w"].kind == "proved up to epsilon"
    assert report["w"].group == ScaleGroup(0)
    assert report["w"].deviation < 1e-3
    assert report["b"].kind == "inert"


# The second adds a difference of statistics, zero if devices had the same rows.
NOT_INVARIANT = {
    "no norm": lambda h: h,
    "a sum for a mean": lambda h: scaled(h, psum(h.mean(0), "d"), 1.0),
    "a difference of rows": lambda h: unsynchronized(h) + h - pmean(h, "d"),
    "a difference of means": lambda h: (
        unsynchronized(h) + h.mean(0) - pmean(h.mean(0), "d")
    ),
    "rows of the others": lambda h: all_gather(h, "d").mean(0) - h,
}


@pytest.mark.parametrize("method", ["both", "probe"])
@pytest.mark.parametrize("name", NOT_INVARIANT)
def test_scales_that_matter_are_seen(name, method):
    report = find(loss_of(NOT_INVARIANT[name]), method=method)
    assert report["w"].kind == "ordinary"


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_])
def test_rows_of_integers_differ_between_devices(dtype):
    def loss(params, x):
        h = params["w"][:1] * jnp.where(x > 0, 1.0, 2.0)[:, None]
        return jnp.sum(jnp.tanh(h - pmean(h, "d")) ** 2)

    x = jnp.asarray([0, 1, 0, 1, 1], dtype)
    assert find(loss, {"w": PARAMS["w"]}, x, method="probe")["w"].kind == (
        "ordinary"
    )


@pytest.mark.parametrize("key", [KEY, jax.random.PRNGKey(0), jnp.ones(())])
def test_keys_and_numbers_are_the_same_on_all_devices(key):
    def loss(params, key):
        if key.ndim == 0 and key.dtype == jnp.float32:
            noise = key
        else:
            noise = jax.random.normal(key)
        return jnp.sum(jnp.tanh(params["w"] * (noise - pmean(noise, "d"))))

    assert find(loss, {"w": PARAMS["w"]}, key, method="probe")["w"].kind == (
        "inert"
    )


def test_few_rows():
    """Of two, one is moved halfway. One row is moved within."""
    report = find(loss_of(unsynchronized), x=X[:2])
    assert report["w"].group == ScaleGroup(0)
    assert report["w"].deviation < 1e-2
    difference = loss_of(lambda h: h - pmean(h, "d"))
    report = find(difference, x=X[:1], method="probe")
    assert report["w"].kind == "ordinary"


def invariant_but_for(difference):
    """Return a loss that sees a scale where statistics of devices differ."""

    def loss(params, x):
        w = params["w"]
        unit = w / jnp.linalg.norm(w, axis=0)
        return total(x @ unit) + jnp.mean(difference(x @ w) ** 2)

    return loss


def deviation(h):
    return h - pmean(h, "d")


def deviation_of_means(h):
    return deviation(h.mean(0))


WEIGHTS = {"w": PARAMS["w"]}


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
@pytest.mark.parametrize("method", ["both", "probe"])
def test_data_that_the_loss_closes_over_differ(method, wrap):
    def kind(difference, x):
        @wrap
        def loss(params):
            return invariant_but_for(difference)(params, x)

        return find_groups(loss, WEIGHTS, axis_name="d", method=method, seed=1)[
            "w"
        ].kind

    assert kind(deviation, X) == "ordinary"
    assert kind(deviation_of_means, X) == "ordinary"
    expected = "proved" if method == "both" else "measured"
    assert kind(lambda h: 0.0, X) == expected


def test_several_axes_and_data_that_the_loss_closes_over():
    def kind(name):
        loss = invariant_but_for(lambda h: h - pmean(h, name))
        names = ("d", "e")
        found = find_groups(lambda p: loss(p, X), WEIGHTS, axis_name=names)
        return found["w"].kind

    assert [kind("d"), kind("e")] == ["ordinary"] * 2


def test_devices_with_the_same_data_measure_nothing():
    def report(difference):
        def loss(params):
            x = jax.random.normal(KEY, (6, 3))
            return invariant_but_for(difference)(params, x)

        return find_groups(loss, WEIGHTS, axis_name="d")

    found = report(deviation)["w"]
    assert found.kind == "ordinary"
    assert "same data" in found.reason
    # A proof needs no data.
    assert report(lambda h: 0.0)["w"].kind == "proved"


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.int32])
def test_two_rows_differ_as_a_set(dtype):
    def kind(difference):
        x = (10 * X[:2]).astype(dtype)
        loss = invariant_but_for(difference)
        return find(loss, WEIGHTS, x, method="probe")["w"].kind

    assert kind(deviation_of_means) == "ordinary"
    assert kind(lambda h: 0.0) == "measured"


def test_pairs_of_ids_are_no_keys():
    def kind(difference):
        ids = jnp.arange(12, dtype=jnp.uint32).reshape(6, 2) % 5

        def loss(params, ids):
            return invariant_but_for(difference)(params, X[ids.sum(1)])

        return find(loss, WEIGHTS, ids, method="probe")["w"].kind

    assert kind(deviation_of_means) == "ordinary"
    assert kind(lambda h: 0.0) == "measured"


def test_several_axes():
    def loss(params, x):
        h = x @ params["w"] + params["b"]
        mean = pmean(h.mean(0), ("d", "e"))
        square = pmean((h * h).mean(0), ("d", "e"))
        return total(scaled(h, mean, square - mean**2))

    for names in (("d", "e"), ["e", "d"]):
        report = find(loss, axis_name=names, method="analysis")
        assert report["w"].group == ScaleGroup(0)
        assert report["b"].kind == "inert"


def test_stated_groups_are_checked_between_devices():
    groups = {"w": ScaleGroup(0), "b": None}
    loss = loss_of(two_passes)
    report = check_groups(loss, PARAMS, groups, X, axis_name="d")
    assert report["w"].deviation < 1e-3
    loss = loss_of(NOT_INVARIANT["a difference of means"])
    with pytest.raises(ValueError, match="'w' of shape"):
        check_groups(loss, PARAMS, groups, X, axis_name="d")


# -- frameworks ----------------------------------------------------------------


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (2,), name="layer")(x)
        x = nn.BatchNorm(use_running_average=False, axis_name="d")(x)
        return nn.relu(x)


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.layer = nnx.Conv(3, 4, (2,), rngs=rngs)
        self.norm = nnx.BatchNorm(4, axis_name="d", rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, x):
        return self.dropout(nnx.relu(self.norm(self.layer(x))))


class EqxNet(eqx.Module):
    """Of one example, as Equinox's layers are: its devices are the batch."""

    layer: eqx.nn.Conv1d
    norm: eqx.nn.BatchNorm

    def __init__(self, key):
        self.layer = eqx.nn.Conv1d(6, 4, 2, key=key)
        self.norm = eqx.nn.BatchNorm(4, axis_name="d", mode="batch")

    def __call__(self, x, state):
        x, state = self.norm(self.layer(x), state)
        return jax.nn.relu(x), state


def linen():
    model, x = LinenNet(), SEQUENCES
    variables = model.init(KEY, x)

    def loss(variables, x):
        y, new = model.apply(variables, x, mutable=["batch_stats"])
        return pmean(total(y), "d"), new

    return loss, (variables, x), "layer/kernel", ScaleGroup((0, 1))


def flax_nnx():
    def loss(model, x):
        y = model(x)
        return pmean(total(y), "d"), y

    args = NnxNet(nnx.Rngs(0)), SEQUENCES
    return loss, args, "layer/kernel", ScaleGroup((0, 1))


def equinox():
    def loss(model, state, x):
        y, state = model(x, state)
        return total(y), state

    args = *eqx.nn.make_with_state(EqxNet)(KEY), X
    return loss, args, "layer/weight", ScaleGroup((1, 2))


def haiku():
    def network(x):
        x = hk.Conv1D(4, 2, name="layer")(x)
        return hk.BatchNorm(True, True, 0.9, cross_replica_axis="d")(x, True)

    model = hk.transform_with_state(network)
    init = jax.vmap(model.init, (None, 0), axis_name="d")
    params, state = jax.tree.map(lambda x: x[0], init(KEY, SEQUENCES[None]))

    def loss(params, state, x):
        y, state = model.apply(params, state, None, x)
        return total(jnp.tanh(y)), state

    return loss, (params, state, SEQUENCES), "layer/w", ScaleGroup((0, 1))


@pytest.mark.parametrize("make", [linen, flax_nnx, equinox, haiku])
def test_batch_norm_of_frameworks(make):
    loss, args, path, group = make()
    for method in ("analysis", "both"):
        report = find_groups(
            loss, *args, has_aux=True, axis_name="d", method=method
        )
        assert report[path].kind == "proved up to epsilon"
        assert report[path].group == group
    with pytest.raises(NameError) as caught:
        find_groups(loss, *args, has_aux=True)
    assert "axis_name=" in "".join(caught.value.__notes__)


# -- names ---------------------------------------------------------------------


def test_names_that_are_refused():
    with pytest.raises(TypeError, match="axis_name=3"):
        find(loss_of(squares), axis_name=3)
    with pytest.raises(TypeError, match=r"axis_name=\('d', 0\)"):
        find(loss_of(squares), axis_name=("d", 0))
    with pytest.raises(ValueError, match="twice"):
        find(loss_of(squares), axis_name=("d", "d"))


def test_names_of_python_that_are_unknown_are_no_axes():
    with pytest.raises(NameError) as caught:
        find_groups(lambda params: undefined_name, PARAMS)  # noqa: F821
    assert "axis_name=" not in "".join(caught.value.__notes__)
