"""Gradients elsewhere, on eight devices: as on one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from psi_optax import ScaleGroup, psi_sgd
from psi_optax.transforms import mix_with_neighbors, relative_ascent, retract
from tests.devices.meshes import make_mesh
from tests.theory.perturbed import distance

pytestmark = pytest.mark.usefixtures("x64")
GROUPS = {"kernel": ScaleGroup(0), "head": None}
SIZE = 8


def make_learners():
    random = np.random.RandomState(0)
    params = {
        "kernel": random.normal(size=(SIZE, 8, 6)),
        "head": random.normal(size=(SIZE, 6)),
    }
    x = random.normal(size=(SIZE, 16, 8))
    return jax.tree.map(jnp.asarray, params), jnp.asarray(x)


def loss(params, x):
    h = x @ params["kernel"]
    h = jnp.tanh((h - h.mean(0, keepdims=True)) / h.std(0, keepdims=True))
    return jnp.mean((h @ params["head"] - 1) ** 2)


def learner(tx, steps=10):
    """Some steps of one of several learners."""

    def run(params, x):
        def step(carry, _):
            params, state = carry
            gradient = jax.grad(loss)(params, x)
            updates, state = tx.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        carry, _ = jax.lax.scan(step, (params, tx.init(params)), length=steps)
        return carry[0]

    return run


TAILS = {
    "psi": lambda mix: (
        psi_sgd(0.3, GROUPS, momentum=0.9),
        mix,
        retract(GROUPS),
    ),
    "momentum": lambda mix: (optax.sgd(0.1, 0.9), mix),
}


@pytest.mark.parametrize("name", TAILS)
def test_learners_on_devices_are_learners_of_vmap(name):
    params, x = make_learners()

    def both(weights):
        mix = mix_with_neighbors("d", weights)
        run = learner(optax.chain(*TAILS[name](mix)))

        def one(params, x):
            inside = jax.tree.map(lambda y: y[0], (params, x))
            return jax.tree.map(lambda y: y[None], run(*inside))

        spec = PartitionSpec("d")
        sharded = jax.shard_map(
            one, mesh=make_mesh("auto"), in_specs=spec, out_specs=spec
        )
        stacked = jax.vmap(run, axis_name="d")
        return jax.jit(stacked)(params, x), jax.jit(sharded)(params, x)

    stacked, sharded = both((0.5, 0.3, 0.2))
    # Ten steps of some roundings of weights up to 4.
    assert distance(*jax.device_get((stacked, sharded))) < 1e-13
    # The control: the other way around the ring.
    other, _ = both((0.2, 0.3, 0.5))
    assert distance(*jax.device_get((stacked, other))) > 1e-2


@pytest.mark.parametrize("skips", [True, False])
def test_a_learner_without_a_finite_gradient_skips_its_step(skips):
    """Inside, so that it still sends its weights."""
    params, x = make_learners()
    x = x.at[2].set(jnp.nan)
    optimizer = psi_sgd(0.3, GROUPS)
    if skips:
        optimizer = optax.apply_if_finite(optimizer, 20)
    mix = mix_with_neighbors("d")
    run = learner(optax.chain(optimizer, mix, retract(GROUPS)), steps=2)

    def one(params, x):
        inside = jax.tree.map(lambda y: y[0], (params, x))
        return jax.tree.map(lambda y: y[None], run(*inside))

    spec = PartitionSpec("d")
    sharded = jax.shard_map(
        one,
        mesh=make_mesh("auto"),
        in_specs=spec,
        out_specs=spec,
        # optax counts bad steps from a zero that is the same on all devices.
        check_vma=False,
    )
    found = jax.device_get(jax.jit(sharded)(params, x))
    finite = np.isfinite(found["head"]).all(1)
    # The control: in two steps NaN arrives at the neighbours.
    assert finite.sum() == (SIZE if skips else SIZE - 3)
    if skips:
        stacked = jax.jit(jax.vmap(run, axis_name="d"))(params, x)
        assert distance(found, jax.device_get(stacked)) < 1e-13


@pytest.mark.parametrize("axis_name", ["d", None])
def test_an_ascent_of_shards_needs_their_axis(axis_name):
    random = np.random.RandomState(1)
    w, g = jnp.asarray(random.normal(size=(2, 16, 6)))
    spec = PartitionSpec("d")

    def update(tx):
        return lambda g, w: tx.update(g, tx.init(w), w)[0]

    whole = update(relative_ascent(0.5, ScaleGroup(0)))(g, w)
    shards = jax.shard_map(
        update(relative_ascent(0.5, ScaleGroup(0, axis_name=axis_name))),
        mesh=make_mesh("auto"),
        in_specs=spec,
        out_specs=spec,
    )
    apart = distance(*jax.device_get((jax.jit(shards)(g, w), whole)))
    assert apart < 1e-15 if axis_name else apart > 0.01
