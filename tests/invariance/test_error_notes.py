"""An error of a loss has a note that says the likely cause and the remedy."""

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import pytest

from psi_optax import find_groups

KEY = jax.random.key(0)
X = jnp.ones((6, 5))


def notes_of(loss, *args, **options):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        find_groups(loss, *args, method="analysis", **options)
    return " ".join(caught.value.__notes__)


def ring(w, x):
    pairs = [(k, (k + 1) % 8) for k in range(8)]
    return jnp.sum(jax.lax.ppermute(x @ w, "d", pairs))


def gathered(w, x):
    return jnp.sum(jax.lax.all_gather(x @ w, "d").reshape(8 * 6, 3))


def in_pairs(w, x):
    pairs = [[0, 1], [2, 3]]
    return jnp.sum(jax.lax.psum(x @ w, "d", axis_index_groups=pairs))


@pytest.mark.parametrize("loss", [ring, gathered, in_pairs])
def test_a_loss_for_another_number_of_devices(loss):
    w = jnp.ones((5, 3))
    notes = notes_of(loss, w, X, axis_name="d")
    assert "two devices" in notes
    assert "shard_map" in notes
    # The control: without a name there are no devices.
    assert "two devices" not in notes_of(loss, w, X)


class Net(nn.Module):
    rate: float = 0.0

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=False)(nn.Dense(4)(x))
        return nn.Dropout(self.rate, deterministic=False)(x)


VARIABLES = jax.eval_shape(lambda: Net().init(KEY, X))


def test_a_linen_module_that_needs_keys():
    model = Net(rate=0.5)
    notes = notes_of(model, VARIABLES, X)
    assert "rngs=" in notes

    def loss(variables, x):
        rngs = {"dropout": KEY}
        return model.apply(variables, x, rngs=rngs, mutable=["batch_stats"])[0]

    report = find_groups(loss, VARIABLES, X, method="analysis")
    assert report["Dense_0/kernel"].group is not None


@pytest.mark.parametrize(
    "variables", [VARIABLES["params"], {"params": VARIABLES["params"]}]
)
def test_a_linen_module_without_all_variables(variables):
    assert "`init` returns" in notes_of(Net(), variables, X)
    assert "`init` returns" not in notes_of(Net(), VARIABLES, X, X)


@pytest.mark.parametrize("transform", [hk.transform, hk.transform_with_state])
def test_a_haiku_function_is_no_loss(transform):
    model = transform(lambda x: hk.Linear(2)(x))
    with pytest.raises(TypeError, match="apply"):
        find_groups(model, {"w": X}, X)
    with pytest.raises(TypeError, match="in order"):
        find_groups({"w": X}, model, X)
