"""Evolution: crossover, clusters of members, and runs on digits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.cluster import hierarchy

import psi_optax
from benchmarks import data
from benchmarks.recipes import evolution
from benchmarks.recipes.evolution import Population
from psi_optax import ScaleGroup

pytestmark = pytest.mark.usefixtures("x64", "optax_promotion")

GROUPS = {"hidden": ScaleGroup(axes=0), "head": ScaleGroup(axes=0)}
MEMBERS = 6
# No cosine is larger.
NEVER = 1.5


@functools.cache
def digits():
    loaded = data.load("digits")
    images = loaded.train_images.reshape(-1, 64)[:300]
    return images.astype(np.float64), loaded.train_labels[:300]


def logits(params, x):
    hidden = jax.nn.standardize(x @ params["hidden"], axis=0, epsilon=0.0)
    hidden = jax.nn.relu(hidden) @ params["head"]
    return jax.nn.standardize(hidden, axis=0, epsilon=0.0)


def loss(params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(
        logits(params, x), y
    ).mean()


def member(key):
    keys = jax.random.split(key)
    return {
        "hidden": jax.random.normal(keys[0], (64, 16), jnp.float64) / 8,
        "head": jax.random.normal(keys[1], (16, 10), jnp.float64) / 4,
    }


def members():
    return jax.vmap(member)(jax.random.split(jax.random.key(0), MEMBERS))


# Of psi_sgd, a momentum whose weights others replace is recognized by a sample.
OPTIMIZER = psi_optax.psi_direction(0.3, optax.trace(0.9), GROUPS)


@functools.cache
def generation(cross, threshold, steps):
    """Compile some steps of training, then a crossover, if there is one."""
    step = evolution.make_training_step(loss, OPTIMIZER, GROUPS, threshold)
    order = np.random.RandomState(0).permutation(300).reshape(-1, 50)
    batches = jnp.asarray(order[:steps])

    def one(key, population, x, y):
        population, losses = jax.lax.scan(
            lambda population, i: step(population, x[i], y[i]),
            population,
            batches,
        )
        if cross is None:
            return population
        # The losses before the last step rank the members.
        return evolution.breed(key, population, losses[-1], cross)

    return jax.jit(one)


def evolve(params, cross, threshold=NEVER, generations=2, steps=5):
    population = Population(params, jax.vmap(OPTIMIZER.init)(params))
    x, y = map(jnp.asarray, digits())
    for seed in range(generations):
        key = jax.random.key(seed)
        one = generation(cross, threshold, steps)
        population = one(key, population, x, y)
    return population.params


@jax.jit
def all_losses(params):
    x, y = map(jnp.asarray, digits())
    return jax.vmap(lambda p: loss(p, x, y))(params)


spherical = evolution.spherical_crossover(GROUPS)


def test_a_child_is_on_the_sphere_of_its_parents():
    first, second = jnp.eye(2)
    half = jnp.array(0.5)
    group = ScaleGroup(0)
    child = evolution.spherical_crossover(group)(first, second, half)
    np.testing.assert_allclose(child, [0.5**0.5] * 2, rtol=1e-15)
    # The control: the midpoint of the line.
    line = evolution.linear_crossover(first, second, half)
    np.testing.assert_allclose(jnp.linalg.norm(line), 0.5**0.5, rtol=1e-15)

    def angle(w):
        """Return that of a step of SGD along (1, -1) over its norm."""
        step = jnp.array([1.0, -1.0]) / jnp.linalg.norm(w)
        return psi_optax.rotation(w, w - 1e-6 * step, group).max()

    # By Taylor's theorem to 1e-12.
    np.testing.assert_allclose(angle(line) / angle(child), 2, rtol=1e-6)


def factors():
    """Return a power of 4 for each member and filter."""
    random = np.random.RandomState(0)
    return {
        name: 4.0 ** random.randint(-1, 2, (MEMBERS, 1, n))
        for name, n in (("hidden", 16), ("head", 10))
    }


def rescaled(params):
    return jax.tree.map(lambda x, f: x * f, params, factors())


def test_evolution_ignores_the_scale_of_each_filter_of_each_member():
    params = members()
    expected = all_losses(evolve(params, spherical, 0.3))
    found = all_losses(evolve(rescaled(params), spherical, 0.3))
    # The powers of norms in a child are rounded; 5 steps follow.
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    # The control: the longer parent has more weight in a linear child.
    linear = evolution.linear_crossover
    expected = all_losses(evolve(params, linear, 0.3))
    found = all_losses(evolve(rescaled(params), linear, 0.3))
    assert np.abs(found - expected).max() > 1e-3


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.8])
def test_clusters_are_those_of_single_linkage(threshold):
    x = np.random.RandomState(0).randn(12, 3)
    links = hierarchy.linkage(x, "single", "cosine")
    labels = hierarchy.fcluster(links, 1 - threshold, "distance")
    found = evolution.clusters(jnp.asarray(x), threshold)
    np.testing.assert_array_equal(found, labels[:, None] == labels)
    assert 1 < len(set(labels)) < 12
    # The control: cosines alone, without chains of links.
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    pairs = unit @ unit.T > threshold
    assert (threshold > 0.6) or (pairs != found).any()


def test_only_the_best_of_equal_members_moves():
    one = member(jax.random.key(1))
    clones = jax.tree.map(lambda x: jnp.stack([x] * MEMBERS), one)
    after = evolve(clones, None, 0.9, generations=1, steps=1)
    moved = (after["hidden"] != clones["hidden"]).any((1, 2))
    assert moved.tolist() == [True] + [False] * (MEMBERS - 1)
    # The control: all move, and stay equal.
    after = evolve(clones, None, NEVER, generations=1, steps=1)
    assert (after["hidden"] != clones["hidden"]).any((1, 2)).all()
    assert (after["hidden"] == after["hidden"][:1]).all()


def test_two_members_have_no_two_parents():
    def bred(count):
        params = jax.tree.map(lambda x: x[:count], members())
        return evolution.breed(
            jax.random.key(0),
            Population(params, {}),
            jnp.arange(count),
            spherical,
        )

    assert bred(3).params["head"].shape == (3, 16, 10)
    with pytest.raises(ValueError, match="3 members"):
        bred(2)


def spread(params):
    """Return the mean angle between filters of two members, in degrees."""
    x = psi_optax.normalize(
        jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), params),
        {name: ScaleGroup(axes=0) for name in params},
    )["hidden"]
    cosines = jnp.einsum("fun,fum->nmu", x, x)[jnp.triu_indices(MEMBERS, 1)]
    return float(jnp.degrees(jnp.arccos(jnp.clip(cosines, -1, 1))).mean())


def test_suppression_separates_clones():
    one = member(jax.random.key(1))
    clones = jax.tree.map(lambda x: jnp.stack([x] * MEMBERS), one)
    assert spread(evolve(clones, None, 0.9)) > 1
    # Arccosines of 1 up to rounding are square roots of it.
    assert spread(evolve(clones, None, NEVER)) < 1e-5


def test_it_trains_on_digits():
    params = members()
    before = all_losses(params)
    after = evolve(params, spherical, 0.3, generations=4)
    assert all_losses(after).max() < before.min() - 0.3
