"""Scale-invariant problems, and training that keeps every step.

Which weights form a group is written down twice: once as `ScaleGroup`s, which
the package reads, and once as `ids`, trees of integers that number the groups
weight by weight (-1 for an ordinary parameter). Rescaling, norms and directions
in the tests come from the numbers alone, in numpy and double precision, so that
a wrong reduction of the package's cannot hide behind itself.
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


def batch_norm(x, epsilon):
    """Normalizes every column over the batch."""
    return _standardize(x, 0, epsilon)


def layer_norm(x, epsilon):
    """Normalizes every row."""
    return _standardize(x, 1, epsilon)


def group_norm(x, blocks, epsilon):
    """Normalizes every row's blocks of channels."""
    rows = x.reshape(x.shape[0] * blocks, -1)
    return _standardize(rows, 1, epsilon).reshape(x.shape)


def _standardize(x, axis, epsilon):
    # At epsilon 0 nothing is added: x + 0 would be exact too, but the point of
    # these functions is that no power of two is seen to pass through them.
    centred = x - x.mean(axis, keepdims=True)
    variance = (centred**2).mean(axis, keepdims=True)
    return centred / jnp.sqrt(variance + epsilon if epsilon else variance)


def bn_mlp(steps, *, epsilon=0.0, dtype=np.float64, seed=0):
    """A 12-16-10-4 perceptron; batch normalization after both hidden layers.

    As in the experiments of the PSI paper, the columns of both hidden kernels
    are scale groups: 26 in all.
    """
    random = np.random.RandomState(seed)
    params = {
        "first": _he(random, 12, 16),
        "second": _he(random, 16, 10),
        "gain": np.ones(10),
        "head": {"kernel": _he(random, 10, 4), "bias": np.zeros(4)},
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
        x = jax.nn.relu(batch_norm(x @ params["first"], epsilon))
        x = batch_norm(x @ params["second"], epsilon) * params["gain"][None]
        return _cross_entropy(jax.nn.relu(x), params["head"], label)

    batches = _batches(random, steps, 12, 4, dtype)
    return Problem(loss, _cast(params, dtype), groups, ids, batches)


def mixed_network(steps, *, epsilon=0.0, dtype=np.float64, seed=0):
    """Three norms in a row: BatchNorm, LayerNorm, GroupNorm of two blocks.

    In front of LayerNorm the kernel and its bias are one tied group; in front
    of GroupNorm the columns of each block are one. 16 + 1 + 2 groups.
    """
    random = np.random.RandomState(seed)
    params = {
        "batch": _he(random, 12, 16),
        "layer": {
            "kernel": _he(random, 16, 10),
            "bias": 0.5 * random.normal(size=10),
        },
        "group": _he(random, 10, 8),
        "head": {"kernel": _he(random, 8, 4), "bias": np.zeros(4)},
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
        x = jax.nn.relu(batch_norm(x @ params["batch"], epsilon))
        x = x @ params["layer"]["kernel"] + params["layer"]["bias"][None]
        x = jax.nn.relu(layer_norm(x, epsilon))
        x = jax.nn.relu(group_norm(x @ params["group"], 2, epsilon))
        return _cross_entropy(x, params["head"], label)

    batches = _batches(random, steps, 12, 4, dtype)
    return Problem(loss, _cast(params, dtype), groups, ids, batches)


def rayleigh(steps, *, size=9, count=4, dtype=np.float64, seed=0):
    """The sum of w'Aw/w'w over some columns w, with a new A at every step.

    Its direction-space gradient is 2 (Av - (v'Av) v): `rayleigh_gradient`.
    """
    random = np.random.RandomState(seed)
    samples = random.normal(size=(steps, 3 * size, size))
    samples *= np.linspace(0.3, 1.0, size)
    matrices = np.einsum("tni,tnj->tij", samples, samples) / (3 * size)
    radii = 2.0 ** np.arange(-1, count - 1)
    params = _unit(random.normal(size=(size, count))) * radii
    ids = np.tile(np.arange(count), (size, 1))
    return Problem(
        rayleigh_loss,
        *_cast((params,), dtype),
        ScaleGroup(axes=0),
        ids,
        matrices.astype(dtype),
    )


def rayleigh_loss(w, matrix):
    """w'Aw/w'w, summed over the columns of w."""
    return ((w * (matrix @ w)).sum(0) / (w**2).sum(0)).sum()


def rayleigh_gradient(w, matrix):
    """The gradient with respect to weights, in numpy."""
    radius = np.linalg.norm(w, axis=0)
    v = w / radius
    image = matrix @ v
    return 2 * (image - v * (v * image).sum(0)) / radius


def cosine_loss(w, target):
    """1 - <b, w>/|w| for one group w and a unit vector b."""
    return 1 - (target * w).sum() / jnp.sqrt((w**2).sum())


def _he(random, fan_in, fan_out):
    return random.normal(size=(fan_in, fan_out)) * np.sqrt(2 / fan_in)


def _unit(columns):
    return columns / np.linalg.norm(columns, axis=0)


def _cross_entropy(x, head, label):
    logits = x @ head["kernel"] + head["bias"][None]
    return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()


def _batches(random, steps, features, classes, dtype, size=32):
    """Noisy linear labels, so that gradients never vanish."""
    x = random.normal(size=(steps, size, features))
    teacher = random.normal(size=(features, classes))
    noisy = x @ teacher + random.normal(size=(steps, size, classes))
    return x.astype(dtype), noisy.argmax(-1).astype(np.int32)


def _cast(tree, dtype):
    return jax.tree.map(lambda x: np.asarray(x, dtype), tree)


@functools.partial(jax.jit, static_argnames="loss")
def _gradient(params, batch, *, loss):
    return jax.grad(loss)(params, batch)


@functools.partial(jax.jit, static_argnames="tx")
def _step(gradient, state, params, *, tx):
    updates, state = tx.update(gradient, state, params)
    return optax.apply_updates(params, updates), state


def train(tx, problem, params=None):
    """Runs an optimizer from params; returns its path and its last state.

    The path holds the weights after every step, one array a leaf with a first
    axis for time. Gradient and step are compiled apart, so that optimizers
    share the gradient; two runs of one `tx` run the same two executables.
    """
    params = problem.params if params is None else params
    params = jax.tree.map(jnp.asarray, params)
    state = tx.init(params)
    path = []
    for t in range(len(jax.tree.leaves(problem.batches)[0])):
        batch = jax.tree.map(lambda x: x[t], problem.batches)  # noqa: B023
        gradient = _gradient(params, batch, loss=problem.loss)
        params, state = _step(gradient, state, params, tx=tx)
        path.append(params)
    return jax.tree.map(lambda *x: np.stack(x), *path), state


def path_of(tx, problem, params=None):
    """The path of `train` alone."""
    return train(tx, problem, params)[0]


def count_groups(ids):
    """How many groups the numbers name."""
    return 1 + max(int(x.max()) for x in jax.tree.leaves(ids))


def rescaled(tree, ids, factors):
    """T_a: every weight times the factor of its group, in the weight's dtype.

    Works on params and, because factors broadcast, on paths of them.
    """
    padded = np.append(factors, 1.0)  # where -1, the ordinary ones, look
    return jax.tree.map(lambda x, i: x * padded[i].astype(x.dtype), tree, ids)


def powers_of_ten(ids, seed=0, span=2.0):
    """A factor 10^U(-span, span) for every group."""
    random = np.random.RandomState(seed)
    return 10 ** random.uniform(-span, span, count_groups(ids))


def powers_of_two(ids, seed=0, span=20):
    """A factor 2^k for every group, k from -span to span, both attained."""
    random = np.random.RandomState(seed)
    exponents = random.randint(-span, span + 1, count_groups(ids))
    exponents[:2] = -span, span
    return np.ldexp(1.0, exponents)


def _columns(tree, ids):
    """Paths as one float64 matrix (steps, weights), and the ids as a vector."""
    pairs = jax.tree.leaves(jax.tree.map(lambda x, i: (x, i), tree, ids))
    xs, numbers = pairs[::2], pairs[1::2]
    flat = [
        np.asarray(x, np.float64).reshape(-1, i.size)
        for x, i in zip(xs, numbers, strict=True)
    ]
    return np.concatenate(flat, 1), np.concatenate([i.ravel() for i in numbers])


def norms(tree, ids):
    """The norm of every group, in float64; shape (steps, groups)."""
    weights, numbers = _columns(tree, ids)
    member = numbers[:, None] == np.arange(count_groups(ids))
    return np.sqrt(weights**2 @ member.astype(np.float64))


def directions(tree, ids):
    """Weights over their norms, ordinary ones as they are; (steps, weights)."""
    weights, numbers = _columns(tree, ids)
    padded = np.pad(norms(tree, ids), ((0, 0), (0, 1)), constant_values=1.0)
    return weights / padded[:, numbers]


def direction_error(one, other, ids):
    """The largest difference of a coordinate of the directions, ever."""
    return np.abs(directions(one, ids) - directions(other, ids)).max()


def lenient(tx):
    """The transform under JAX's standard promotion of dtypes.

    The tests run under the strict one, which optax's own Adam does not bear:
    its bias correction raises a float to an integer count.
    """

    def update_fn(updates, state, params=None, **extra_args):
        with jax.numpy_dtype_promotion("standard"):
            return tx.update(updates, state, params, **extra_args)

    tx = optax.with_extra_args_support(tx)
    return optax.GradientTransformationExtraArgs(tx.init, update_fn)
