"""Scale-invariant problems.

Which weights form a group is written down twice: once as `ScaleGroup`s, which
the package reads, and once as `ids`, trees of integers that number the groups
weight by weight (-1 for an ordinary parameter). Rescaling, norms and directions
in the tests come from the numbers alone (`tests.theory.scales`), so that a
wrong reduction of the package's cannot hide behind itself.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from psi_optax import ScaleGroup

Tree = Any


class Problem(NamedTuple):
    """A loss that does not see the scale of some of its weights."""

    loss: Callable[[Tree, Tree], jax.Array]  # of params and one batch
    params: Tree
    groups: Tree
    ids: Tree
    batches: Tree  # one for each step along the first axis


def standardize(x, axes, epsilon=0.0):
    """Subtracts the mean over some axes and divides by the deviation."""
    centred = x - x.mean(axes, keepdims=True)
    variance = (centred**2).mean(axes, keepdims=True)
    return centred / jnp.sqrt(variance + epsilon if epsilon else variance)


def group_norm(x, blocks, epsilon=0.0):
    """Standardizes every block of channels, row by row."""
    rows = x.reshape(len(x) * blocks, -1)
    return standardize(rows, 1, epsilon).reshape(x.shape)


@functools.cache
def bn_mlp(steps=300, *, epsilon=0.0, dtype=np.float64):
    """A 12-16-10-4 perceptron, batch normalization after both hidden layers.

    The columns of both hidden kernels are scale groups: 26 in all.
    """
    random = np.random.RandomState(0)
    params = {
        "first": _he_normal(random, 12, 16),
        "second": _he_normal(random, 16, 10),
        "gain": np.ones(10),
        "head": {"kernel": _he_normal(random, 10, 4), "bias": np.zeros(4)},
    }
    groups = {
        "first": ScaleGroup(axes=0),
        "second": ScaleGroup(axes=0),
        "gain": None,
        "head": None,
    }
    ids = {
        "first": np.tile(np.arange(16), (12, 1)),
        "second": np.tile(16 + np.arange(10), (16, 1)),
        "gain": np.full(10, -1),
        "head": {"kernel": np.full((10, 4), -1), "bias": np.full(4, -1)},
    }

    def loss(params, batch):
        x, label = batch
        x = jax.nn.relu(standardize(x @ params["first"], 0, epsilon))
        x = standardize(x @ params["second"], 0, epsilon)
        x = jax.nn.relu(x * params["gain"][None])
        return _cross_entropy(x, params["head"], label)

    batches = _classification(steps, dtype)
    return Problem(loss, cast(params, dtype), groups, ids, batches)


@functools.cache
def mixed_network(steps=300, *, epsilon=0.0, dtype=np.float64):
    """Three norms in a row: BatchNorm, LayerNorm, GroupNorm of two blocks.

    In front of LayerNorm the kernel and its bias are one tied group; in front
    of GroupNorm the columns of each block are one: 16 + 1 + 2 groups.
    """
    random = np.random.RandomState(0)
    params = {
        "batch": _he_normal(random, 12, 16),
        "layer": {
            "kernel": _he_normal(random, 16, 10),
            "bias": 0.5 * random.normal(size=10),
        },
        "group": _he_normal(random, 10, 8),
        "head": {"kernel": _he_normal(random, 8, 4), "bias": np.zeros(4)},
    }
    groups = {
        "batch": ScaleGroup(axes=0),
        "layer": {
            "kernel": ScaleGroup(axes=(0, 1), tie="layer"),
            "bias": ScaleGroup(axes=0, tie="layer"),
        },
        "group": ScaleGroup(axes=(0, 1), blocks={1: 2}),
        "head": None,
    }
    ids = {
        "batch": np.tile(np.arange(16), (12, 1)),
        "layer": {"kernel": np.full((16, 10), 16), "bias": np.full(10, 16)},
        "group": np.tile(17 + np.arange(8) // 4, (10, 1)),
        "head": {"kernel": np.full((8, 4), -1), "bias": np.full(4, -1)},
    }

    def loss(params, batch):
        x, label = batch
        x = jax.nn.relu(standardize(x @ params["batch"], 0, epsilon))
        x = x @ params["layer"]["kernel"] + params["layer"]["bias"][None]
        x = jax.nn.relu(standardize(x, 1, epsilon))
        x = jax.nn.relu(group_norm(x @ params["group"], 2, epsilon))
        return _cross_entropy(x, params["head"], label)

    batches = _classification(steps, dtype)
    return Problem(loss, cast(params, dtype), groups, ids, batches)


@functools.cache
def rayleigh(steps=300, *, noise=0.3, size=9, count=4, dtype=np.float64):
    """The sum of w'Aw/w'w over some columns w, with another A at every step.

    At noise 0 A is one diagonal matrix with eigenvalues from 1 to 2.
    """
    random = np.random.RandomState(0)
    w = random.normal(size=(size, count))
    w *= np.geomspace(0.5, 4.0, count) / np.linalg.norm(w, axis=0)
    upper = random.normal(size=(steps, size, size)) / np.sqrt(size)
    matrices = np.diag(np.linspace(1, 2, size)) + noise * (
        upper + upper.transpose(0, 2, 1)
    )
    ids = np.tile(np.arange(count), (size, 1))
    return Problem(
        rayleigh_loss,
        w.astype(dtype),
        ScaleGroup(0),
        ids,
        cast(matrices, dtype),
    )


def rayleigh_loss(w, matrix):
    """w'Aw/w'w, summed over the columns of w."""
    return ((w * (matrix @ w)).sum(0) / (w**2).sum(0)).sum()


def rayleigh_gradient(v, matrix):
    """Its gradient at columns v of norm 1, in numpy: 2 (Av - (v'Av) v)."""
    image = matrix @ v
    return 2 * (image - v * (v * image).sum(0))


def cosine_loss(w, target):
    """1 - <b, w>/|w| for one group w and a unit vector b."""
    return 1 - (target * w).sum() / jnp.sqrt((w**2).sum())


def cast(tree, dtype):
    """The tree with every leaf as a numpy array of one dtype."""
    return jax.tree.map(lambda x: np.asarray(x, dtype), tree)


def _he_normal(random, fan_in, fan_out):
    return random.normal(size=(fan_in, fan_out)) * np.sqrt(2 / fan_in)


def _cross_entropy(x, head, label):
    logits = x @ head["kernel"] + head["bias"][None]
    return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()


def _classification(steps, dtype, size=32):
    """Batches of 12 features and 4 classes, whose labels are half noise.

    A longer run begins as a shorter one does.
    """
    random = np.random.RandomState(1)
    teacher = random.normal(size=(12, 4)) / np.sqrt(12)
    drawn = random.normal(size=(steps, size, 16))
    x, noise = drawn[:, :, :12], drawn[:, :, 12:]
    return x.astype(dtype), (x @ teacher + noise).argmax(-1).astype(np.int32)
