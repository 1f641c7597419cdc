"""Narrow weights that follow copies in float32, and Flax's way to do without.

What float32 does is a run of the inner optimizer itself, compiled once for both
and stepped outside of jit, so that the arithmetic is the same.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from psi_optax import ScaleGroup, psi_adam, psi_sgd
from psi_optax.wrappers import master_weights
from tests.compilation import quick_jit
from tests.conformance.checks import assert_equal, dtypes
from tests.theory.training import lenient, to_numpy

GROUPS = {
    "brain": ScaleGroup(axes=0),
    "half": ScaleGroup(axes=0),
    "single": ScaleGroup(axes=0),
    "bias": None,
}
STEPS = 20


def tree(seed, scale=1.0):
    random = np.random.RandomState(seed)
    brain, half, single = scale * random.normal(size=(3, 16, 8))
    return {
        "brain": brain.astype(jnp.bfloat16),
        "half": half.astype(np.float16),
        "single": single.astype(np.float32),
        "bias": random.normal(size=5).astype(jnp.bfloat16),
    }


def wide(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float32), tree)


def rounded(tree, like):
    return jax.tree.map(lambda x, y: x.astype(y.dtype), tree, like)


def compiled(tx):
    """The same executable for whoever calls it with the same types."""
    tx = lenient(tx)
    return optax.GradientTransformationExtraArgs(
        tx.init, quick_jit(lambda *args: tx.update(*args))
    )


def path_of(tx, params, gradients):
    """Weights and state after each step."""
    state, path = tx.init(params), []
    for gradient in gradients:
        updates, state = tx.update(gradient, state, params)
        assert dtypes(updates) == dtypes(params)
        params = to_numpy(optax.apply_updates(params, updates))
        path.append((params, state))
    return path


INNER = {
    "psi_sgd": psi_sgd(1e-3, GROUPS, momentum=0.9),
    "psi_adam": psi_adam(1e-4, GROUPS, weight_decay=0.01),
}


@pytest.mark.parametrize("name", INNER)
def test_the_copy_goes_where_float32_goes_to_the_last_bit(name):
    tx = compiled(INNER[name])
    params = tree(0)
    gradients = [tree(seed, 0.1) for seed in range(1, 1 + STEPS)]
    path = path_of(master_weights(tx), params, gradients)
    expected = path_of(tx, wide(params), list(map(wide, gradients)))
    old = params
    for (narrow, state), (single, single_state) in zip(
        path, expected, strict=True
    ):
        copy = {**narrow, **masked(to_numpy(state.weights))}
        assert_equal(copy, single)
        assert_equal(state.inner, single_state)
        jax.tree.map(assert_follows, narrow, rounded(single, params), old)
        old = narrow
    # The control: without copies, it goes elsewhere.
    direct = path_of(compiled(INNER[name]), params, gradients)[-1][0]
    for leaf in "brain", "half", "bias":
        assert np.mean(direct[leaf] != path[-1][0][leaf]) > 0.05


def assert_follows(new, copy, old):
    """A parameter is the rounded copy.

    But for the few that lose more than half of themselves or double: their
    step is rounded, to half of its eps, and the sum once more.
    """
    eps = float(jnp.finfo(new.dtype).eps)
    new, copy, old = (np.asarray(x, np.float64) for x in (new, copy, old))
    far = (np.abs(copy) < np.abs(old) / 2) | (np.abs(copy) > 2 * np.abs(old))
    far |= copy * old < 0
    assert np.array_equal(new[~far], copy[~far])
    most = eps / 2 * (np.abs(copy - old) + np.abs(new))
    assert np.all(np.abs(new - copy) <= most)
    assert far.mean() < 0.02


def masked(weights):
    """What there is a copy of."""
    assert isinstance(weights["single"], optax.MaskedNode)
    return {k: x for k, x in weights.items() if k != "single"}


def test_shapes_are_enough_for_a_state():
    tx = master_weights(INNER["psi_sgd"])
    shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, tree(0)))
    state = tx.init(shapes)
    assert state == jax.eval_shape(lambda: tx.init(tree(0)))
    assert state.weights["brain"].dtype == jnp.float32


def test_a_parameter_that_moves_far_is_off_for_one_step():
    # From 1 to 0.00625. What bfloat16 has between -1 and -1/2 are multiples of
    # 2^-8: the step to it is off by up to half of that.
    tx = master_weights(optax.sgd(0.1))
    w, gradient = jnp.ones(1, "bfloat16"), jnp.full(1, 9.9375, "bfloat16")
    updates, state = tx.update(gradient, tx.init(w), w)
    after = optax.apply_updates(w, updates)
    copy = state.weights.astype("bfloat16")
    assert 0 < abs(after.item() - copy.item()) <= 2**-9
    # A step of zero is one for a parameter that is off.
    updates, state = tx.update(jnp.zeros_like(w), state, after)
    assert_equal(optax.apply_updates(after, updates), copy)
    # Updates that come in float32 stay so, and have room for the first step.
    updates, _ = tx.update(gradient.astype("float32"), tx.init(w), w)
    assert_equal((w.astype("float32") + updates).astype("bfloat16"), copy)


def test_what_others_do_to_the_parameters_is_undone():
    tx = master_weights(optax.sgd(0.1))
    w = tree(0)["brain"]
    state = tx.init(w)
    changed = (2 * w.astype(np.float32)).astype(w.dtype)
    updates, _ = tx.update(np.zeros_like(w), state, changed)
    assert_equal(np.asarray(optax.apply_updates(changed, updates)), w)
    # Unless the state is made anew.
    updates, _ = tx.update(np.zeros_like(w), tx.init(changed), changed)
    assert not np.any(updates)


# Without a wrapper: float32 parameters that a Flax layer casts.


class Net(nn.Module):
    """A layer in bfloat16 in front of a normalization in float32."""

    @nn.compact
    def __call__(self, x):
        dense = nn.Dense(
            8, use_bias=False, dtype="bfloat16", param_dtype="float32"
        )
        x = jnp.asarray(dense(x), jnp.float32)
        x = nn.BatchNorm(use_running_average=False, epsilon=0.0)(x)
        return jnp.sum(jnp.sin(x + jnp.cos(x)))


def test_flax_casts_in_the_forward_pass():
    x = np.random.RandomState(0).normal(size=(32, 16)).astype(np.float32)
    variables = quick_jit(Net().init)(jax.random.key(0), x)
    kernel = variables["params"]["Dense_0"]["kernel"]
    assert kernel.dtype == jnp.float32

    def flax_loss(kernel):
        params = {**variables["params"], "Dense_0": {"kernel": kernel}}
        out, _ = Net().apply(
            {**variables, "params": params}, x, mutable=["batch_stats"]
        )
        return out

    def explicit_loss(kernel):
        narrow = jnp.asarray(kernel, jnp.bfloat16)
        out = jnp.asarray(jnp.asarray(x, jnp.bfloat16) @ narrow, jnp.float32)
        out = nn.BatchNorm(use_running_average=False, epsilon=0.0).apply(
            {k: v["BatchNorm_0"] for k, v in variables.items()},
            out,
            mutable=["batch_stats"],
        )[0]
        return jnp.sum(jnp.sin(out + jnp.cos(out)))

    tx = psi_sgd(1e-3, ScaleGroup(axes=0), momentum=0.9)

    def trained(loss):
        def body(carry, _):
            kernel, state = carry
            value, gradient = jax.value_and_grad(loss)(kernel)
            updates, state = tx.update(gradient, state, kernel)
            kernel = optax.apply_updates(kernel, updates)
            return (kernel, state), (value, gradient)

        return quick_jit(
            lambda kernel: jax.lax.scan(
                body, (kernel, tx.init(kernel)), length=STEPS
            )
        )(kernel)

    (last, _), (losses, gradients) = trained(flax_loss)
    assert gradients.dtype == last.dtype == jnp.float32
    assert np.all(np.any(np.asarray(gradients) != 0, axis=(1, 2)))
    # The gradient is of the narrow kernel, and is rounded like one.
    assert_equal(gradients.astype(jnp.bfloat16).astype(jnp.float32), gradients)
    assert losses[-1] < losses[0]
    (other, _), (same, _) = trained(explicit_loss)
    assert_equal(other, last)
    assert_equal(same, losses)
    # psi keeps the norms of the float32 kernel, to 2 ulp: rounded, they are
    # farther off. A weight is off by up to 2^-8, of 16 weights the norm is.
    begun = np.linalg.norm(np.asarray(kernel, np.float64), axis=0)
    norms = np.linalg.norm(np.asarray(last, np.float64), axis=0)
    assert np.all(np.abs(norms / begun - 1) < 2 * 2.0**-23)
    cast = np.asarray(last.astype(jnp.bfloat16), np.float64)
    assert np.max(np.abs(np.linalg.norm(cast, axis=0) / begun - 1)) > 1e-5
