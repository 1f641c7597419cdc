"""Losses over several batches, and losses and models of every kind."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax.groups.paths import leaves_with_paths
from psi_optax.landscape import (
    average_loss,
    dataset_hessian,
    eigenpairs,
    gradient_noise,
    gradient_probe,
    hessian,
    loss_surface,
    tangent_space,
    trace,
)
from tests.invariance.test_frameworks import SCRIPTS
from tests.landscape.network import GROUPS, dense, loss

KEY = jax.random.key(2)


def split(args, sizes):
    x, y = args
    ends = np.cumsum([0, *sizes])
    return [(x[a:b], y[a:b]) for a, b in itertools.pairwise(ends)]


def close(found, expected, rtol=1e-12):
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol, 1e-14)


def products(params, batches, u):
    return [
        hessian(loss, params, *batch, groups=GROUPS).matvec(u)
        for batch in batches
    ]


def test_an_average_is_the_mean_over_batches(net, x64):
    params, args = net
    batches = split(args, [8, 8, 8])
    u = tangent_space(params, GROUPS).random(KEY)
    parts = products(params, batches, u)
    mean = jax.tree.map(lambda *x: sum(x) / 3, *parts)
    stacked = tuple(jnp.stack(x) for x in zip(*batches, strict=True))
    for given in (batches, stacked):
        averaged = average_loss(loss, given)
        close(hessian(averaged, params, groups=GROUPS).matvec(u), mean)
    # The control: BatchNorm makes one batch of all examples another loss.
    [whole] = products(params, [args], u)
    assert abs(whole["head"]["kernel"] - mean["head"]["kernel"]).max() > 1e-3


def test_a_data_set_is_weighted_by_examples(net, x64):
    params, args = net
    batches = split(args, [12, 8, 4])
    u = tangent_space(params, GROUPS).random(KEY)
    parts = products(params, batches, u)

    def of_data(**options):
        given = {"groups": GROUPS, **options}
        return dataset_hessian(loss, params, batches, **given).matvec(u)

    def mean(*weights):
        return jax.tree.map(lambda *x: np.average(x, 0, weights), *parts)

    close(of_data(), mean(3, 2, 1))
    close(of_data(weights=[1, 1, 4]), mean(1, 1, 4))
    assert (
        abs(of_data()["head"]["kernel"] - mean(1, 1, 1)["head"]["kernel"]).max()
        > 1e-4
    )


def test_eigenvalues_and_traces_of_a_data_set(net, x64):
    params, args = net
    batches = split(args, [12, 12])
    averaged = hessian(average_loss(loss, batches), params, groups=GROUPS)
    values = np.linalg.eigvalsh(dense(averaged, params))
    seen = []

    def loader():
        for batch in batches:
            seen.append(batch)
            yield batch

    curvature = dataset_hessian(loss, params, loader, groups=GROUPS)
    found = eigenpairs(curvature, KEY, num_smallest=1, tolerance=0.0)
    np.testing.assert_allclose(found.values, values[[-1, 0]], rtol=1e-9)
    rough = eigenpairs(curvature, KEY, num_matvecs=20, tolerance=1e-3)
    np.testing.assert_allclose(rough.values, values[-1:], rtol=1e-3)
    seen.clear()
    expected = trace(averaged, KEY, num_probes=5)
    close(trace(curvature, KEY, num_probes=5), expected, 1e-10)
    # Each product goes through all batches once.
    assert len(seen) == 2 * 5


def test_batches_that_cannot_be_used_again():
    batches = [jnp.ones(3)] * 2
    with pytest.raises(ValueError, match="function that returns an iterator"):
        dataset_hessian(linear, jnp.ones(3), iter(batches))
    same = iter(batches)
    curvature = dataset_hessian(linear, jnp.ones(3), lambda: same)
    curvature.matvec(jnp.ones(3))
    with pytest.raises(ValueError, match="used up"):
        curvature.matvec(jnp.ones(3))
    with pytest.raises(ValueError, match="empty"):
        dataset_hessian(linear, jnp.ones(3), []).matvec(jnp.ones(3))
    for weights in ([1.0], [1.0] * 3):
        curvature = dataset_hessian(
            linear, jnp.ones(3), batches, weights=weights
        )
        with pytest.raises(ValueError, match="weights"):
            curvature.matvec(jnp.ones(3))


@pytest.mark.parametrize(
    "batches",
    [
        [],
        [jnp.ones(3), jnp.ones(2)],
        (jnp.ones((2, 3)), jnp.ones(3)),
        jnp.ones([]),
    ],
)
def test_an_average_needs_batches_of_equal_shapes(batches):
    with pytest.raises(ValueError, match="batches"):
        average_loss(linear, batches)


def linear(w, x):
    return jnp.sin(w @ x)


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda w: w, r"shape \(2,\)"),
        (lambda w: (w @ w, w), "tuple"),
        (lambda w: jnp.sum(w).astype(int), "int32"),
        (lambda w: None, "NoneType"),
    ],
)
def test_losses_that_are_no_scalars(function, match):
    w = jnp.ones(2)
    for call in (
        lambda: hessian(function, w).matvec(w),
        lambda: gradient_probe(function, w, steps=[0.1]),
        lambda: loss_surface(function, w, directions=[w], steps=[0.1]),
        lambda: gradient_noise(lambda w, _: function(w), w, [w, w]),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_a_compiled_loss_compiles_one_product():
    traced = []

    def counted(w, x):
        traced.append(x.shape)
        return jnp.sin(w @ x)

    def product(loss_fn, x):
        return hessian(loss_fn, jnp.ones(3), x).matvec(jnp.ones(3))

    compiled = jax.jit(counted)
    first = product(compiled, jnp.ones(3))
    count = len(traced)
    close(product(compiled, jnp.ones(3)), first)
    assert len(traced) == count
    # Other arrays are other arguments of the same program.
    assert not np.allclose(product(compiled, 2 * jnp.ones(3)), first)
    assert len(traced) == count


def test_a_loss_that_is_not_compiled_sees_variables_that_change():
    held = {"x": jnp.ones(3)}

    def changing(w):
        return jnp.sin(w @ held["x"])

    w = jnp.ones(3)
    before = hessian(changing, w).matvec(w)
    held["x"] = 2 * jnp.ones(3)
    after = hessian(changing, w).matvec(w)
    np.testing.assert_allclose(before, -3 * np.sin(3.0), rtol=1e-5)
    np.testing.assert_allclose(after, -12 * np.sin(6.0), rtol=1e-5)


def dot(x, y):
    pairs = zip(*map(jax.tree.leaves, (x, y)), strict=True)
    return sum(float(jnp.vdot(a, b)) for a, b in pairs)


@pytest.mark.parametrize("name", SCRIPTS)
def test_models_of_every_framework(name, optax_promotion):
    script = SCRIPTS[name](is_normalized=True)

    def loss_fn(*args):
        return script.loss(*args)[0]

    with jax.numpy_rank_promotion("allow"):
        groups = {script.path: script.group}
        others = [x.path for x in leaves_with_paths(script.weights())]
        groups = dict.fromkeys(others) | groups
        curvature = hessian(loss_fn, *script.inputs, groups=groups)
        u, v = (curvature.space.random(jax.random.key(i)) for i in range(2))
        forth, again, back = map(curvature.matvec, (u, u, v))
        found = eigenpairs(curvature, KEY, num_matvecs=8)
    weights = script.weights()
    assert jax.tree.structure(u) == jax.tree.structure(weights)
    # Four filters.
    total = sum(x.size for x in jax.tree.leaves(weights))
    assert curvature.space.size == total - 4
    # Single precision.
    np.testing.assert_allclose(dot(v, forth), dot(u, back), 1e-3, 1e-5)
    assert dot(forth, forth) > 0
    # The same bits twice: nothing that the loss writes is kept.
    jax.tree.map(np.testing.assert_array_equal, forth, again)
    assert found.residuals[0] < found.values[0]
