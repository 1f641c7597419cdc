"""monitor_groups beside a step of ours: it asks, and need not measure.

The control everywhere is the same chain with a transform in between, which
passes the bits of the updates on as other arrays: then the parts are measured.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

import psi_optax
from psi_optax import ScaleGroup, geometry, joint_groups
from psi_optax._compat import enable_x64
from psi_optax.diagnostics import monitor_groups
from psi_optax.groups import make_plan
from psi_optax.transforms import retract
from tests.registry import GROUPS, draw
from tests.theory.training import lenient

FREEZE = optax.set_to_zero()
SGD = functools.partial(psi_optax.psi_sgd, groups=GROUPS)
RECIPES = {
    "psi_sgd": lambda c: SGD(c),
    "psi_sgd_momentum": lambda c: SGD(c, momentum=0.9),
    "psi_sgd_nesterov": lambda c: SGD(c, momentum=0.9, nesterov=True),
    "psi": lambda c: psi_optax.psi(optax.sgd(c, 0.9), GROUPS),
    "whole_steps": lambda c: psi_optax.psi(
        optax.sgd(c, 0.9), GROUPS, tangent=False
    ),
    "additive": lambda c: psi_optax.psi(optax.sgd(c), GROUPS, retraction=None),
    "another_radius": lambda c: SGD(c, radius=1.5),
    "psi_adam": lambda c: psi_optax.psi_adam(c, GROUPS),
    "geodesic": lambda c: psi_optax.psi_direction(
        c, optax.trace(0.9), GROUPS, retraction="exponential"
    ),
    "rotational": lambda c: psi_optax.rotational(
        c, optax.trace(0.9), GROUPS, ordinary=FREEZE
    ),
    "hyperball": lambda c: psi_optax.hyperball(
        c, optax.trace(0.9), GROUPS, ordinary=FREEZE, per_tensor=False
    ),
    "adamh": lambda c: psi_optax.adamh(
        c, GROUPS, ordinary=FREEZE, per_tensor=False
    ),
    "retract": lambda c: optax.chain(optax.sgd(c, 0.9), retract(GROUPS)),
    "retract_geodesic": lambda c: optax.chain(
        optax.sgd(c, 0.9), retract(GROUPS, retraction="exponential")
    ),
    "sgd_g": lambda c: psi_optax.sgd_g(c, GROUPS, ordinary=FREEZE),
}
# The same bits in other arrays.
IN_BETWEEN = optax.stateless(
    lambda u, _: jax.tree.map(lambda x: x * jnp.ones([], x.dtype), u)
)
MONITOR = monitor_groups(GROUPS)

pytestmark = pytest.mark.filterwarnings("ignore:learning_rate")


def twice(tx):
    """A transform, a monitor that may ask it, and another that cannot."""
    return lenient(optax.chain(tx, MONITOR, IN_BETWEEN, MONITOR))


def tangent(params, seed=1):
    """A gradient without radial parts, as of a scale-invariant loss."""
    plan = make_plan(GROUPS, params)
    g = draw(seed, params["vector"].dtype)
    projected = geometry.project_to_tangent(
        plan, plan.select(params), plan.select(g)
    )
    return plan.merge(g, projected)


def watch(tx, params, slope, steps=2):
    """The states of both monitors after steps along slope(params)."""
    tx = twice(tx)

    @jax.jit
    def run(params, state):
        for _ in range(steps):
            u, state = tx.update(slope(params), state, params)
            params = optax.apply_updates(params, u)
        return state

    state = run(params, tx.init(params))
    return state[1], state[3]


@pytest.fixture
def measured(monkeypatch):
    """The plans whose updates are measured from here on."""
    plans = []
    inside = geometry.update_parts.__globals__
    real = inside["measure_parts"]

    def measure(plan, w, u):
        plans.append(plan)
        return real(plan, w, u)

    monkeypatch.setitem(inside, "measure_parts", measure)
    return plans


def assert_agree(ours, theirs, eps):
    """Equal but for the rounding of the new weights.

    Each of them is off by eps/2 of itself at most, hence the update by eps/2 of
    the norm, which is eps/2 over the rotation, of its length. All else, sums of
    24 products, roots and quotients, adds some 20 eps.
    """
    for name, rotation in theirs.rotation.items():
        error = 20 * eps + eps / float(rotation)
        for field in ("rotation", "norm_min", "norm_max"):
            np.testing.assert_allclose(
                getattr(ours, field)[name],
                getattr(theirs, field)[name],
                rtol=error,
                err_msg=f"{field} of {name}",
            )
        np.testing.assert_allclose(
            ours.radial_fraction[name],
            theirs.radial_fraction[name],
            atol=error,
            err_msg=name,
        )


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("angle", [0.03, 1e-6])
def test_values_are_those_of_measuring(recipe, angle, measured):
    params = draw(0)
    ours, theirs = watch(RECIPES[recipe](angle), params, tangent)
    assert len(measured) == 2  # by the second monitor alone
    assert all(x > 0 for x in theirs.rotation.values())
    assert_agree(ours, theirs, 2.0**-23)


@pytest.mark.parametrize("recipe", RECIPES)
def test_values_in_float64(recipe, measured):
    with enable_x64(True):
        params = draw(0, "float64")
        ours, theirs = watch(RECIPES[recipe](1e-6), params, tangent)
        # The state is of float32.
        assert_agree(ours, theirs, 2.0**-23 * 1e-6)
    assert len(measured) == 2


@pytest.mark.parametrize("recipe", ["psi_sgd_momentum", "psi", "retract"])
def test_half_precision_is_measured(recipe, measured):
    """There the rounding of the weights is a large part of a step."""
    params = draw(0, "bfloat16")
    watch(RECIPES[recipe](1e-3), params, lambda _: draw(1, "bfloat16"))
    assert len(measured) == 4  # by both monitors


@pytest.mark.parametrize("recipe", ["psi_sgd", "psi_sgd_momentum"])
def test_radial_gradients_are_seen_by_the_one_sum(recipe):
    """The step takes gradients for tangent. Its sum shows that they are not."""
    params = draw(0)
    gradient = jax.tree.map(jnp.add, tangent(params), params)
    ours, theirs = watch(
        RECIPES[recipe](0.03), params, lambda _: gradient, steps=1
    )
    for name, rotation in theirs.rotation.items():
        # Of the radial part, the error is 8 eps of the norm over the rotation.
        np.testing.assert_allclose(ours.rotation[name], rotation, rtol=1e-4)


@pytest.mark.parametrize("recipe", ["psi_sgd_momentum", "psi", "retract"])
def test_groups_that_stay(recipe):
    params = draw(0)
    params["vector"] = jnp.zeros(5)
    still = jax.tree.map(jnp.zeros_like, params)
    ours, theirs = watch(RECIPES[recipe](0.1), params, lambda _: still)
    for seen in (ours, theirs):
        assert not any(seen.rotation.values())
        assert seen.norm_max["vector"] == 0
        assert not any(seen.radial_fraction.values())


def test_what_is_measured(measured):
    params, other = draw(0), dict(GROUPS, vector=None)
    tx = SGD(0.1, momentum=0.9)

    def look(monitor, *, weights=params, before=IN_BETWEEN, jit=lambda f: f):
        def update(g):
            u, _ = tx.update(g, tx.init(params), params)
            u = jit(lambda u: u)(before.update(u, before.init(params))[0])
            return monitor.update(u, monitor.init(params), weights)

        measured.clear()
        jax.make_jaxpr(update)(draw(1))
        return bool(measured)

    as_it_is = optax.identity()
    assert not look(MONITOR, before=as_it_is)
    assert look(MONITOR)
    assert look(MONITOR, before=as_it_is, weights=draw(2))
    assert look(MONITOR, before=as_it_is, jit=jax.jit)
    assert look(monitor_groups(other), before=as_it_is)
    assert look(monitor_groups(joint_groups(GROUPS)), before=as_it_is)
    # Concrete arrays: they outlive the step.
    measured.clear()
    chain = optax.chain(tx, MONITOR)
    chain.update(draw(1), chain.init(params), params)
    assert measured


def test_a_step_remembers_one_updates_alone(measured):
    """Two steps, then a monitor of the first: only the last is known."""
    params = draw(0)
    tx = SGD(0.1)

    def both(g):
        first, _ = tx.update(g, tx.init(params), params)
        second, _ = tx.update(g, tx.init(params), params)
        last = MONITOR.update(second, MONITOR.init(params), params)
        known = len(measured)
        return last, MONITOR.update(first, MONITOR.init(params), params), known

    known = jax.eval_shape(lambda g: both(g)[:2], draw(1)) and len(measured)
    assert known == 1


def vmapped(tx, params, gradient):
    many = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), (params, gradient))
    state = jax.vmap(lambda p, g: tx.update(g, tx.init(p), p)[1])(*many)
    return jax.tree.map(lambda x: x[0], state)


def scanned(tx, params, gradient):
    def body(carry, _):
        p, state = carry
        u, state = tx.update(gradient, state, p)
        return (optax.apply_updates(p, u), state), None

    return jax.lax.scan(body, (params, tx.init(params)), length=3)[0][1]


def donated(tx, params, gradient):
    def step(p, state, g):
        u, state = tx.update(g, state, p)
        return optax.apply_updates(p, u), state

    step = jax.jit(step, donate_argnums=(0, 1))
    return step(jax.tree.map(jnp.copy, params), tx.init(params), gradient)[1]


def sharded(tx, params, gradient):
    mesh = jax.make_mesh((2,), ("d",))
    return jax.shard_map(
        lambda p, g: tx.update(g, tx.init(p), p)[1],
        mesh=mesh,
        in_specs=PartitionSpec(),
        out_specs=PartitionSpec(),
    )(params, gradient)


def mapped(tx, params, gradient):
    many = jax.tree.map(lambda x: jnp.stack([x, x]), (params, gradient))
    state = jax.pmap(lambda p, g: tx.update(g, tx.init(p), p)[1])(*many)
    return jax.tree.map(lambda x: x[0], state)


def differentiated(tx, params, gradient):
    def loss(g):
        u, state = tx.update(g, tx.init(params), params)
        return sum(x.sum() for x in jax.tree.leaves(u)), state

    slope, state = jax.jit(jax.grad(loss, has_aux=True))(gradient)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(slope))
    return state


@pytest.mark.parametrize(
    "run", [vmapped, scanned, donated, sharded, mapped, differentiated]
)
@pytest.mark.parametrize("recipe", ["psi_sgd_momentum", "psi", "retract"])
def test_inside_transformations(run, recipe, measured):
    params = draw(0)
    tx = twice(RECIPES[recipe](0.01))
    state = run(tx, params, tangent(params))
    assert_agree(state[1], state[3], 2.0**-23)
    assert len(set(map(id, measured))) >= 1


@pytest.mark.parametrize("recipe", ["psi_sgd_momentum", "psi", "retract"])
def test_no_tracer_outlives_its_trace(recipe):
    params = draw(0)
    tx = lenient(optax.chain(RECIPES[recipe](0.01), MONITOR))
    state = tx.init(params)
    with jax.checking_leaks():
        jax.jit(tx.update)(tangent(params), state, params)
    # A monitor is not needed for that.
    alone = lenient(RECIPES[recipe](0.01))
    state = alone.init(params)
    with jax.checking_leaks():
        jax.jit(alone.update)(tangent(params), state, params)


def test_bytes_of_a_monitored_step():
    """It reads the momentum once more: 4 bytes a weight."""
    w = {"w": jnp.zeros((512, 256))}
    groups = {"w": ScaleGroup(0)}
    tx = psi_optax.psi_sgd(0.1, groups, momentum=0.9)
    monitor = monitor_groups(groups)
    bare = bytes_per_weight(tx, w)
    # Scalars of groups are 1/512 of a weight each.
    assert bytes_per_weight(optax.chain(tx, monitor), w) < bare + 8
    control = optax.chain(tx, optax.scale(0.5), monitor)
    assert bytes_per_weight(control, w) > bare + 16


def bytes_per_weight(tx, w):
    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step, donate_argnums=(0, 1))
    compiled = step.lower(w, tx.init(w), w).compile()
    return compiled.cost_analysis()["bytes accessed"] / w["w"].size
