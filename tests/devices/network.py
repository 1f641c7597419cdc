"""A small network with every kind of scale group, and its trajectories.

A layer before BatchNorm (one group a column), one before LayerNorm (kernel and
bias tied in one group), one before GroupNorm (three blocks of columns) and an
ordinary head. All widths are multiples of 8, the number of devices, and the
three blocks are not made of whole shards. Every epsilon is 0 and the activation
is smooth, so that rounding alone can tell two trajectories apart.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from psi_optax import ScaleGroup, adam_g, psi, psi_adam, psi_sgd, psi_sgdm
from tests.compilation import quick_jit
from tests.theory.networks import standardize

BATCH = 64
BLOCKS = 3
STEPS = 30

GROUPS = {
    "batch/kernel": ScaleGroup(axes=0),
    "layer/kernel": ScaleGroup(axes=(0, 1), tie="layer"),
    "layer/bias": ScaleGroup(axes=0, tie="layer"),
    "group/kernel": ScaleGroup(axes=(0, 1), blocks={1: BLOCKS}),
    "head": None,
}

# One group a row in place of a column; no tie; no blocks.
WRONG_GROUPS = {
    **GROUPS,
    "batch/kernel": ScaleGroup(axes=1),
    "layer/kernel": ScaleGroup(axes=(0, 1)),
    "layer/bias": None,
    "group/kernel": ScaleGroup(axes=(0, 1)),
}

RECIPES = {
    "psi": lambda groups: psi(optax.sgd(0.002, momentum=0.9), groups),
    "psi_sgd": lambda groups: psi_sgd(0.002, groups, momentum=0.9),
    "psi_adam": lambda groups: psi_adam(0.01, groups),
    "psi_sgdm": lambda groups: psi_sgdm(0.002, groups),
    "adam_g": lambda groups: adam_g(0.03, groups),
}

# How much of a relative change of the weights is left after `STEPS` steps, at
# most: between 8 and 27, measured by a test.
SENSITIVITY = 40


def make_params(dtype):
    """Weights; the norms of columns differ by factors of up to 100."""
    random = np.random.RandomState(0)

    def kernel(rows, columns):
        scales = 10.0 ** random.uniform(-1, 1, columns)
        return random.normal(size=(rows, columns)) / np.sqrt(rows) * scales

    params = {
        "batch": {"kernel": kernel(16, 32)},
        "layer": {"kernel": kernel(32, 24), "bias": random.normal(size=24)},
        "group": {"kernel": kernel(24, 24)},
        "head": {"kernel": kernel(24, 8), "bias": random.normal(size=8)},
    }
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), params)


def make_batch(dtype):
    """Inputs and targets of a regression."""
    random = np.random.RandomState(1)
    shapes = (BATCH, 16), (BATCH, 8)
    return tuple(jnp.asarray(random.normal(size=s), dtype) for s in shapes)


def forward(params, x, linear=jnp.matmul):
    """The outputs; `linear` multiplies activations by a kernel."""
    x = jnp.tanh(standardize(linear(x, params["batch"]["kernel"]), 0))
    layer = params["layer"]
    x = linear(x, layer["kernel"]) + layer["bias"][None]
    x = jnp.tanh(standardize(x, 1))
    x = linear(x, params["group"]["kernel"])
    blocks = standardize(x.reshape(len(x), BLOCKS, -1), 2)
    x = jnp.tanh(blocks.reshape(x.shape))
    head = params["head"]
    return linear(x, head["kernel"]) + head["bias"][None]


def loss(params, batch, linear=jnp.matmul):
    """The mean squared error."""
    x, y = batch
    return jnp.mean((forward(params, x, linear) - y) ** 2)


def step(tx):
    """What follows the gradient, as a function that can be transformed."""

    def step_fn(gradient, state, params):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return step_fn


def run(gradient_fn, step_fn, params, state, batch):
    """The weights and the state after `STEPS` steps."""
    for _ in range(STEPS):
        gradient = jax.block_until_ready(gradient_fn(params, batch))
        params, state = jax.block_until_ready(step_fn(gradient, state, params))
    return params, state


@functools.cache
def on_one_device(recipe, dtype, wrong=False, nudge=0.0, loss_fn=loss):
    """The weights, as numpy arrays, at which all devices are to arrive.

    Args:
        recipe: a name of `RECIPES`.
        dtype: of weights and data.
        wrong: whether the groups are.
        nudge: size of a relative change of the initial weights.
        loss_fn: what is minimized.
    """
    tx, step_fn = _jitted(recipe, wrong)
    random = np.random.RandomState(2)
    params = jax.tree.map(
        lambda x: x * (1 + nudge * random.normal(size=x.shape).astype(dtype)),
        make_params(dtype),
    )
    params, _ = run(
        _gradient(loss_fn), step_fn, params, tx.init(params), make_batch(dtype)
    )
    return jax.tree.map(np.asarray, params)


@functools.cache
def _gradient(loss_fn):
    return quick_jit(jax.grad(loss_fn))


@functools.cache
def _jitted(recipe, wrong):
    tx = RECIPES[recipe](WRONG_GROUPS if wrong else GROUPS)
    return tx, quick_jit(step(tx))


def distance(a, b):
    """The largest difference of two trees, relative to b's leaf's maximum."""
    gaps = jax.tree.map(
        lambda x, y: np.max(np.abs(np.asarray(x) - y)) / np.max(np.abs(y)),
        a,
        b,
    )
    return max(jax.tree.leaves(gaps))


def tolerance(dtype):
    """The distance that rounding explains.

    On other devices sums are formed in another order. The largest, of 768
    terms, then differs by some sqrt(768) roundings of half an epsilon: with
    what follows it, by 8 epsilons in the weights after a step. `STEPS` of these
    grow as any other change does.
    """
    return SENSITIVITY * STEPS * 8 * np.finfo(dtype).eps
