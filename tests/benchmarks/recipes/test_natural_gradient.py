"""Natural gradients: the matrix, its null space, and the space of damping."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import psi_optax
from benchmarks.recipes.natural_gradient import (
    fisher_matrix,
    scale_by_inverse_fisher,
)
from psi_optax import ScaleGroup

pytestmark = pytest.mark.usefixtures("x64")

GROUPS = {"kernel": ScaleGroup(axes=0), "head": None}
DAMPING = 0.01
LABELS = np.arange(30) % 3


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape, jnp.float64)


def weights():
    return {"kernel": draw(0, 6, 5), "head": draw(1, 5, 3)}


def logits(params):
    hidden = draw(2, 30, 6) @ params["kernel"]
    hidden = jax.nn.standardize(hidden, axis=0, epsilon=0.0)
    return jnp.tanh(hidden) @ params["head"]


def loss(params):
    return optax.softmax_cross_entropy_with_integer_labels(
        logits(params), LABELS
    ).mean()


fisher = functools.partial(fisher_matrix, logits)


def natural():
    return scale_by_inverse_fisher(fisher, DAMPING)


def run(tx, params, steps, after=lambda params: params):
    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return after(optax.apply_updates(params, updates)), state

    state = tx.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params


def difference(a, b):
    """Return the largest difference, relative to the largest element."""
    a, b = ravel_pytree(a)[0], ravel_pytree(b)[0]
    return float(jnp.abs(a - b).max() / jnp.abs(b).max())


def rescaled(params, factor):
    return params | {"kernel": factor * params["kernel"]}


def test_the_fisher_matrix_is_the_hessian_of_the_divergence():
    params = weights()
    flat, unravel = ravel_pytree(params)
    p = jax.nn.log_softmax(logits(params))

    def divergence(x, reference):
        q = jax.nn.log_softmax(logits(unravel(x)))
        return (jnp.exp(reference) * (reference - q)).sum(1).mean()

    found = fisher(params)
    hessian = jax.hessian(divergence)
    # Second derivatives of 150 logits, each of some 20 operations.
    np.testing.assert_allclose(found, hessian(flat, p), atol=1e-13)
    # The control: around another distribution the Hessian has more terms.
    other = jax.nn.log_softmax(draw(3, 30, 3))
    assert jnp.abs(hessian(flat, other) - found).max() > 0.01


def test_radial_steps_are_in_the_null_space():
    params = weights()
    radial = params | {"head": jnp.zeros_like(params["head"])}
    length = jnp.linalg.norm(fisher(params) @ ravel_pytree(radial)[0])
    assert length < 1e-14
    # The control: the head has a scale.
    ordinary = params | {"kernel": jnp.zeros_like(params["kernel"])}
    assert jnp.linalg.norm(fisher(params) @ ravel_pytree(ordinary)[0]) > 0.01


def test_damping_in_direction_space_ignores_scale_to_the_bit():
    tx = psi_optax.psi_direction(0.1, natural(), GROUPS)
    params = weights()
    after, large = (run(tx, p, 5) for p in (params, rescaled(params, 8.0)))
    expected = rescaled(after, 8.0)
    for a, b in zip(*map(jax.tree.leaves, (large, expected)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert loss(after) < loss(params) - 0.1


def test_damping_in_weight_space_does_not():
    tx = natural()
    params = weights()
    step, large = (
        tx.update(jax.grad(loss)(p), tx.init(p), p)[0]["kernel"]
        for p in (params, rescaled(params, 8.0))
    )
    # F + damping is by 64 nearer to damping, and the step nearer to g.
    assert difference(large, 8 * step) == pytest.approx(0.94, abs=0.03)


def test_steps_of_weights_of_norm_one_have_the_damping_of_directions():
    """A recipe for optimizers that are not optax transforms."""
    normalize = functools.partial(psi_optax.normalize, groups=GROUPS)
    descend = optax.chain(natural(), optax.scale(-0.1))
    inside = psi_optax.psi_direction(0.1, natural(), GROUPS)
    params = rescaled(weights(), 3.0)
    expected = normalize(run(inside, params, 5))
    found = run(descend, normalize(params), 5, after=normalize)
    # Rounding of 5 steps, by the condition number of F + damping, about 1e3.
    assert difference(found, expected) < 1e-11
    # The control: normalized only at the end.
    assert difference(normalize(run(descend, params, 5)), expected) > 0.01


def kfac_steps(params, normalize, steps=3):
    import kfac_jax

    x = jnp.asarray(draw(2, 30, 6), jnp.float32)

    def value(params, batch):
        hidden = batch[0] @ params["kernel"]
        hidden = jax.nn.standardize(hidden, axis=0, epsilon=0.0)
        outputs = jnp.tanh(hidden) @ params["head"]
        kfac_jax.register_softmax_cross_entropy_loss(outputs, batch[1])
        return optax.softmax_cross_entropy_with_integer_labels(
            outputs, batch[1]
        ).mean()

    optimizer = kfac_jax.Optimizer(
        jax.value_and_grad(value),
        l2_reg=0.0,
        estimation_mode="fisher_exact",
        num_burnin_steps=0,
        inverse_update_period=1,
    )
    batch, key = (x, jnp.asarray(LABELS)), jax.random.PRNGKey(0)
    # A step donates its params.
    params = normalize(jax.tree.map(jnp.copy, params))
    state = optimizer.init(params, key, batch)
    numbers = {"learning_rate": 0.1, "momentum": 0.0, "damping": DAMPING}
    numbers = {k: jnp.float32(x) for k, x in numbers.items()}
    for _ in range(steps):
        params, state, _ = optimizer.step(
            params, state, key, batch=batch, **numbers
        )
        params = normalize(params)
    return params


@pytest.mark.skipif(
    jax.__version_info__ >= (0, 10),
    reason="kfac-jax 0.0.8 uses functions that JAX has removed since",
)
@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("optax_promotion")
def test_kfac_jax_with_weights_of_norm_one():
    pytest.importorskip("kfac_jax")
    params = jax.tree.map(lambda x: x.astype(jnp.float32), weights())
    normalize = functools.partial(psi_optax.normalize, groups=GROUPS)
    with jax.numpy_rank_promotion("allow"):
        after, large, raw, raw_large = (
            normalize(kfac_steps(rescaled(params, factor), before))
            for before in (normalize, lambda params: params)
            for factor in (1.0, 8.0)
        )
    # Norms of float32, by a condition number of about 1e3.
    assert difference(after, large) < 1e-3
    # The control: damping in weight space.
    assert difference(raw, raw_large) > 0.01


def test_errors():
    with pytest.raises(ValueError, match="positive"):
        scale_by_inverse_fisher(fisher, 0.0)
    tx = natural()
    with pytest.raises(ValueError, match="pass params"):
        tx.update(weights(), tx.init(weights()))
