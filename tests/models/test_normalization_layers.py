"""Mixtures of two normalizations, and whitening, in both frameworks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn, nnx as flax_nnx
from jax.sharding import PartitionSpec

from psi_optax import ScaleGroup, batch_stats, check_groups, find_groups
from psi_optax.models import linen, nnx
from psi_optax.models.functions.whitening import inverse_root
from tests.devices.meshes import make_mesh
from tests.models.normed import (
    CHANNELS,
    batch_norm,
    covariance,
    draw,
    images,
    loss_of,
    start,
)

FILTERS = ScaleGroup((0, 1, 2))
WHOLE = ScaleGroup((0, 1, 2, 3))
LAYERS = {
    "gn_first": ("GroupBatchNorm", {"num_groups": 4}),
    "bn_first": ("GroupBatchNorm", {"num_groups": 4, "order": "bn_first"}),
    "parallel": ("GroupBatchNorm", {"num_groups": 4, "order": "parallel"}),
    "whitened": ("WhitenedBatchNorm", {}),
    "two blocks": ("WhitenedBatchNorm", {"num_groups": 2, "steps": 7}),
    "eigh": ("WhitenedBatchNorm", {"num_groups": 2, "method": "eigh"}),
}
HYBRIDS, WHITENED = list(LAYERS)[:3], list(LAYERS)[3:]

pytestmark = pytest.mark.usefixtures("optax_promotion")


def features():
    """Return correlated channels, in float32."""
    x = images().reshape(-1, 4)
    mixed = x @ draw(4, CHANNELS, seed=3) + 0.3 * draw(288, CHANNELS, seed=4)
    return (mixed + 1).reshape(8, 6, 6, CHANNELS).astype(jnp.float32)


def linen_layer(name, **options):
    kind, given = LAYERS[name]
    return getattr(linen, kind)(**{**given, **options})


@functools.cache
def variables_of(name):
    """Return variables whose scale and bias are not 1 and 0."""
    layer = linen_layer(name, use_running_average=False)
    variables = layer.init(jax.random.key(0), features())
    moved = {
        "scale": 1 + 0.1 * jnp.arange(8.0),
        "bias": 0.1 * jnp.arange(8.0),
    }
    return {**variables, "params": {**variables["params"], **moved}}


def apply(name, x, variables=None, train=True, **options):
    """Return the outputs and the new statistics of the Linen layer."""
    layer = linen_layer(name, use_running_average=not train, **options)
    y, updates = layer.apply(
        variables or variables_of(name), x, mutable=["batch_stats"]
    )
    return y, updates["batch_stats"]


def nnx_layer(name, variables):
    kind, given = LAYERS[name]
    more = {"rngs": flax_nnx.Rngs(0)} if kind == "GroupBatchNorm" else {}
    layer = getattr(nnx, kind)(CHANNELS, **given, **more)
    for of, collection in (
        (flax_nnx.Param, variables["params"]),
        (flax_nnx.BatchStat, variables["batch_stats"]),
    ):
        state = flax_nnx.state(layer, of)
        flax_nnx.replace_by_pure_dict(state, collection)
        flax_nnx.update(layer, state)
    return layer


@pytest.mark.parametrize("name", LAYERS)
def test_both_frameworks_compute_the_same(name):
    x, variables = features(), variables_of(name)
    layer = nnx_layer(name, variables)
    trained, statistics = apply(name, x)
    np.testing.assert_allclose(layer(x), trained, rtol=0, atol=1e-6)
    found = flax_nnx.to_pure_dict(flax_nnx.state(layer, flax_nnx.BatchStat))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6),
        found,
        statistics,
    )
    layer.eval()
    after = {**variables, "batch_stats": statistics}
    evaluated, kept = apply(name, x, after, train=False)
    np.testing.assert_allclose(layer(x), evaluated, rtol=0, atol=2e-6)
    jax.tree.map(np.testing.assert_array_equal, kept, statistics)
    assert np.abs(evaluated - trained).max() > 0.1


@pytest.mark.parametrize("name", LAYERS)
def test_after_many_equal_batches_evaluation_is_training(name):
    x, variables = features(), variables_of(name)
    trained, fresh = apply(name, x, momentum=0.0)
    variables = {**variables, "batch_stats": fresh}
    evaluated, _ = apply(name, x, variables, train=False)
    np.testing.assert_allclose(evaluated, trained, rtol=0, atol=2e-6)
    # Each example alone, which the batch does not change.
    one, _ = apply(name, x[:1], variables, train=False)
    np.testing.assert_allclose(one, trained[:1], rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["bn_first", "whitened"])
def test_statistics_are_recalibrated(name):
    x, variables = features(), variables_of(name)
    found = batch_stats.recalibrate(
        lambda v, x: apply(name, x, v)[1], variables, [x, x]
    )
    _, fresh = apply(name, x, momentum=0.0)
    # Of a momentum of 0.99: 1e-7/(1 - 0.99), times statistics up to 10.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-4),
        found["batch_stats"],
        fresh,
    )


# Mixtures.


def plain(name, x, mix, **options):
    """Return outputs without the scale and bias, of a given mixture."""
    params = {
        "mix": jnp.full((), mix),
        "scale": jnp.ones(8),
        "bias": jnp.zeros(8),
    }
    variables = {**variables_of(name), "params": params}
    return apply(name, x, variables, **options)[0]


def flax_group_norm(x):
    layer = nn.GroupNorm(
        4,
        epsilon=1e-5,
        use_bias=False,
        use_scale=False,
        use_fast_variance=False,
    )
    return layer.apply({}, x)


@pytest.mark.parametrize("name", HYBRIDS)
def test_the_ends_of_a_mixture(name):
    x = features()
    whole, half, none = (plain(name, x, mix) for mix in (1.0, 0.5, 0.0))
    grouped, batched = flax_group_norm(x), batch_norm(x)
    expected = {
        "gn_first": (grouped, batch_norm(grouped)),
        "bn_first": (flax_group_norm(batched), batched),
        "parallel": (grouped, batched),
    }[name]
    # The epsilon of variances near one is 5e-6 of outputs up to four.
    np.testing.assert_allclose(whole, expected[0], rtol=0, atol=4e-5)
    np.testing.assert_allclose(none, expected[1], rtol=0, atol=4e-5)
    np.testing.assert_allclose(half, (whole + none) / 2, rtol=0, atol=1e-6)
    assert np.abs(half - whole).max() > 0.1


def test_a_batch_of_one_example():
    x = features()[:1, :1, :1]
    for name in HYBRIDS:
        assert np.isfinite(plain(name, x, 0.5)).all()


# Whitening.


@pytest.mark.parametrize("name", WHITENED)
def test_channels_are_uncorrelated(name):
    x = features()
    params = {"scale": jnp.ones(8), "bias": jnp.zeros(8)}
    variables = {**variables_of(name), "params": params}
    y, _ = apply(
        name,
        x,
        variables,
        epsilon=0.0,
        **({} if name == "eigh" else {"steps": 25}),
    )
    found = covariance(y)
    for i in range(0, 8, 8 // LAYERS[name][1].get("num_groups", 1)):
        block = slice(i, i + 8 // LAYERS[name][1].get("num_groups", 1))
        # The condition of the covariance, about 300, times float32's eps.
        np.testing.assert_allclose(
            found[block, block], np.eye(len(found[block])), rtol=0, atol=1e-3
        )
    assert np.abs(covariance(x) - np.eye(8)).max() > 1
    if name != "whitened":
        assert np.abs(found - np.eye(8)).max() > 0.1


def symmetric(condition, n=6):
    q, _ = np.linalg.qr(np.random.RandomState(0).normal(size=(n, n)))
    return jnp.asarray((q * np.geomspace(1, condition, n)) @ q.T)


@pytest.mark.usefixtures("x64")
def test_the_coupled_iteration_is_exact_and_does_not_diverge():
    def error(condition, steps, method="newton_schulz"):
        matrix = symmetric(condition)
        root = inverse_root(matrix, method, steps, 0.0)
        return float(jnp.abs(root @ matrix @ root - jnp.eye(6)).max())

    for steps in (30, 60):
        assert error(140, steps) < 1e-13
        assert error(1e4, steps) < 1e-11
    assert error(1e4, 8) > 0.01
    assert error(140, 0, "eigh") < 1e-13
    assert error(1e4, 0, "eigh") < 1e-11

    # The form of one factor, at the step where it is best and beyond.
    matrix = symmetric(140.0)
    scaled, b = matrix / jnp.trace(matrix), jnp.eye(6)
    errors = []
    for _ in range(40):
        b = 1.5 * b - 0.5 * b @ b @ b @ scaled
        errors.append(float(jnp.abs(b @ scaled @ b - jnp.eye(6)).max()))
    assert np.nanmin(errors) > 1e-9
    assert not errors[-1] < 1


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("equal", [True, False])
def test_derivatives_at_equal_variances(equal):
    matrix = 2 * jnp.eye(5) if equal else symmetric(4.0, 5)
    step = draw(5, 5)
    step = step + step.T

    def moved(function):
        return jax.jvp(function, [matrix], [step])[1]

    exact = moved(lambda m: inverse_root(m, "eigh", 0, 0.0))
    steps = moved(lambda m: inverse_root(m, "newton_schulz", 30, 0.0))
    np.testing.assert_allclose(exact, steps, rtol=0, atol=1e-12)
    h = 1e-5
    ends = [inverse_root(matrix + t * step, "eigh", 0, 0.0) for t in (-h, h)]
    difference = (ends[1] - ends[0]) / (2 * h)
    # Third derivatives times h squared.
    np.testing.assert_allclose(exact, difference, rtol=0, atol=1e-8)

    def plain(m):
        values, vectors = jnp.linalg.eigh(m)
        return (vectors / jnp.sqrt(values).reshape(1, -1)) @ vectors.T

    # JAX's rule divides by differences of eigenvalues.
    wrong = np.abs(moved(plain) - exact).max()
    assert (not wrong < 0.1) if equal else wrong < 1e-12


def test_channels_that_do_not_vary():
    def total(x, method, epsilon):
        layer = linen.WhitenedBatchNorm(
            method=method, use_running_average=False, epsilon=epsilon
        )
        variables = {
            "params": {"scale": jnp.ones(3), "bias": jnp.zeros(3)},
            "batch_stats": {
                "mean": jnp.zeros(3),
                "covariance": jnp.eye(3)[None],
            },
        }
        y, _ = layer.apply(variables, x, mutable=["batch_stats"])
        return jnp.sum(y**2)

    x = draw(10, 3).astype(jnp.float32).at[:, 1].set(0)
    for method in ("newton_schulz", "eigh"):
        for constant, epsilon in ((jnp.ones((10, 3)), 1e-5), (x, 0.0)):
            found = jax.value_and_grad(total)(constant, method, epsilon)
            assert all(jnp.isfinite(part).all() for part in found)
        assert jnp.isnan(total(jnp.ones((10, 3)), method, 0.0))


# Scale groups.


def normalization(name, **options):
    """Return the layer in training mode as a function of activations."""
    # Kept for later calls: in a trace they would be its tracers.
    variables = variables_of(name)

    def norm(h):
        layer = linen_layer(
            name, use_running_average=False, epsilon=0.0, **options
        )
        return layer.apply(variables, h, mutable=["batch_stats"])[0]

    return norm


def problem(name, **options):
    cast = functools.partial(jax.tree.map, lambda x: x.astype(jnp.float32))
    return (
        loss_of(normalization(name, **options)),
        cast(start()),
        cast(images()),
    )


EXPECTED = {
    "gn_first": ScaleGroup((0, 1, 2, 3), blocks={3: 4}),
    "bn_first": FILTERS,
    "parallel": ScaleGroup((0, 1, 2, 3), blocks={3: 4}),
    "whitened": WHOLE,
    "two blocks": ScaleGroup((0, 1, 2, 3), blocks={3: 2}),
    "eigh": ScaleGroup((0, 1, 2, 3), blocks={3: 2}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_groups_of_a_kernel_before_a_layer(name):
    loss, params, x = problem(name)
    found = find_groups(loss, params, x, method="analysis")
    assert found["kernel"].group == EXPECTED[name]
    assert found["kernel"].kind == "proved"
    assert found["head"].group is None
    check_groups(loss, params, found, x)
    filters = {"kernel": FILTERS, "head": None}
    if name == "bn_first":
        check_groups(loss, params, filters, x)
    else:
        with pytest.raises(ValueError, match="kernel"):
            check_groups(loss, params, filters, x)


@pytest.mark.parametrize("name", ["gn_first", "whitened"])
def test_statistics_of_a_batch_on_several_devices(name):
    x = features()
    expected, statistics = apply(name, x)
    rows = PartitionSpec("d")

    def on_devices(axis_name):
        return jax.jit(
            jax.shard_map(
                lambda x: apply(name, x, axis_name=axis_name),
                mesh=make_mesh("auto"),
                in_specs=rows,
                out_specs=(rows, PartitionSpec()),
                check_vma=False,
            )
        )(x)

    found, moved = on_devices("d")
    # Sums of 288 numbers, in another order: their rounding of 1e-7 times the
    # condition of the covariance, 300.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6),
        moved,
        statistics,
    )
    assert np.abs(on_devices(None)[0] - expected).max() > 0.01


# The IC layer: batch normalization, then dropout, then the weights.


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kept", [0.9, 0.5])
def test_dropout_behind_batch_normalization_decorrelates(kept):
    normal = draw(40000, 2)
    x = normal @ jnp.linalg.cholesky(jnp.array([[1, 0.7], [0.7, 1]])).T

    def correlation(norm):
        y = norm(x)
        drop = nn.Dropout(1 - kept, deterministic=False)
        y = drop.apply({}, y, rngs={"dropout": jax.random.key(0)})
        return np.corrcoef(np.asarray(y).T)[0, 1]

    # Of 40,000 examples: deviations of 1/200.
    assert abs(correlation(batch_norm) - 0.7 * kept) < 0.02
    # Without the normalization a mean is dropped too, which adds variance.
    assert abs(correlation(lambda x: x + 2) - 0.7 * kept) > 0.1


def test_the_groups_of_a_kernel_before_independent_components():
    """They are those of batch normalization, one layer later."""

    def loss(params, x, key):
        h = batch_norm(x @ params["k"])
        drop = nn.Dropout(0.5, deterministic=False)
        h = drop.apply({}, h, rngs={"dropout": key})
        return jnp.mean((jax.nn.relu(h @ params["head"]) - 1) ** 2)

    cast = functools.partial(jax.tree.map, lambda x: x.astype(jnp.float32))
    params = cast({"k": draw(4, 6), "head": draw(6, 3)})
    x, key = cast(draw(16, 4)), jax.random.key(0)
    found = find_groups(loss, params, x, key, method="analysis")
    assert (found["k"].kind, found["k"].group) == ("proved", ScaleGroup(0))
    assert found["head"].group is None


# Errors.


@pytest.mark.parametrize("kind", ["GroupBatchNorm", "WhitenedBatchNorm"])
def test_errors(kind):
    x = features()
    layer = getattr(linen, kind)(num_groups=3, use_running_average=False)
    with pytest.raises(ValueError, match="num_groups=3 does not divide 8"):
        layer.init(jax.random.key(0), x)
    option = {
        "GroupBatchNorm": {"order": "last"},
        "WhitenedBatchNorm": {"method": "svd"},
    }[kind]
    layer = getattr(linen, kind)(
        num_groups=2, use_running_average=False, **option
    )
    with pytest.raises(ValueError, match="choose one of"):
        layer.init(jax.random.key(0), x)
    twin = functools.partial(getattr(nnx, kind), CHANNELS)
    if kind == "GroupBatchNorm":
        twin = functools.partial(twin, rngs=flax_nnx.Rngs(0))
    with pytest.raises(ValueError, match="num_groups=3"):
        twin(num_groups=3)
    with pytest.raises(ValueError, match="choose one of"):
        twin(num_groups=2, **option)
