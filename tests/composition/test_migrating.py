"""A run that migrates to psi, as in docs/migrating.md, with controls."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from psi_optax import ScaleGroup
from psi_optax.dynamics import convert_learning_rate
from psi_optax.optimizers import carry_moments

pytestmark = pytest.mark.usefixtures("optax_promotion")

GROUPS = {"kernel": ScaleGroup(axes=0), "head": None}
SCHEDULE = optax.cosine_decay_schedule(3e-3, 100)
X = jax.random.normal(jax.random.key(1), (11, 64, 9))
# The old optimizer, and the one inside of `psi`.
OPTIMIZERS = {
    "adamw": (optax.adamw(SCHEDULE, weight_decay=0.1), optax.adam),
    "sgd": (
        optax.sgd(SCHEDULE, momentum=0.9),
        lambda rate: optax.sgd(rate, momentum=0.9),
    ),
}


def loss_fn(params, x):
    x = jnp.tanh(jax.nn.standardize(x @ params["kernel"], axis=0))
    return jnp.mean((x @ params["head"] - 1) ** 2)


def train(tx, params, state, batches):
    for x in batches:
        updates, state = tx.update(jax.grad(loss_fn)(params, x), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


class Run:
    """A run after ten steps, with kernels of norm 3, and ways to go on."""

    def __init__(self, name):
        self.name = name
        self.old, self.make = OPTIMIZERS[name]
        kernel = jax.random.normal(jax.random.key(0), (9, 16))
        start = psi_optax.normalize({"kernel": kernel}, ScaleGroup(axes=0))
        params = {"kernel": 3 * start["kernel"], "head": jnp.full((16, 2), 0.1)}
        state = self.old.init(params)
        self.params, self.state = train(self.old, params, state, X[:10])

    def stay(self):
        """Return the params after one more step."""
        return train(self.old, self.params, self.state, X[10:])[0]

    def migrate(self, *, rate=None, carries=True):
        """Return the same of `psi`; None converts the learning rate."""
        if rate is None:
            rate = convert_learning_rate(
                SCHEDULE, self.params, GROUPS, optimizer=self.name
            ).learning_rate
        tx = psi_optax.psi(self.make(rate), GROUPS, ordinary=self.old)
        state = tx.init(self.params)
        if carries:
            state, _ = carry_moments(self.state, state, self.params, GROUPS)
        return train(tx, self.params, state, X[10:])[0]

    def rotation(self, params):
        """Return the RMS angle of the groups since the tenth step."""
        angles = psi_optax.rotation(self.params, params, GROUPS)["kernel"]
        return float(np.sqrt(np.mean(np.square(angles))))


@pytest.fixture(scope="module", params=OPTIMIZERS)
def run(request):
    with jax.numpy_dtype_promotion("standard"):
        return Run(request.param)


def test_groups_rotate_as_before(run):
    expected = run.rotation(run.stay())
    # Norms differ by up to 0.5 % after ten steps, and one rate is for all.
    # Adam's momentum has a radial part, which has no effect under `psi`.
    np.testing.assert_allclose(run.rotation(run.migrate()), expected, rtol=1e-3)
    # Not converted, rates are off by the norm or its square, 3 or 9.
    assert run.rotation(run.migrate(rate=SCHEDULE)) > 2.5 * expected
    # Without its momentum SGD begins slowly. Adam's first step is its longest.
    anew = run.rotation(run.migrate(carries=False))
    assert abs(anew / expected - 1) > 0.1


def test_the_next_step_of_ordinary_parameters_has_the_same_bits(run):
    head = run.stay()["head"]
    assert jnp.array_equal(run.migrate()["head"], head)
    assert not jnp.array_equal(run.migrate(carries=False)["head"], head)
