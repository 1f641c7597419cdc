"""What is compiled: the beginning, a step, and the evaluation."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from benchmarks.data import images as image_arrays
from benchmarks.train.layout import Layout
from benchmarks.training import cross_entropy, make_loss, make_update

__all__ = ["Training", "make_evaluate", "make_step", "start"]


class Training(NamedTuple):
    """All that a run carries from one epoch to the next."""

    variables: Any
    state: optax.OptState


def start(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    layout: Layout,
    shape: tuple[int, ...],
    seed: int,
) -> Training:
    """Initial variables and state, on their devices.

    Args:
        model: a Linen model of `psi_optax.models`.
        optimizer: a whole optimizer.
        layout: what lies where.
        shape: of an image.
        seed: of the initial weights, which are the same in all layouts up to
            rounding.
    """
    init = functools.partial(model.init, x=jnp.zeros((1, *shape)), train=False)
    key = jax.random.key(seed)
    shapes = jax.eval_shape(init, key)
    shardings = {
        name: layout.shardings(tree)
        if name == "params"
        else jax.tree.map(lambda _: layout.everywhere, tree)
        for name, tree in shapes.items()
    }
    # It runs once: on a CPU good machine code takes longer than it saves.
    on_cpu = jax.default_backend() == "cpu"
    quick = {"xla_backend_optimization_level": 0} if on_cpu else None
    variables = jax.jit(init, out_shardings=shardings, compiler_options=quick)(
        key
    )
    return Training(variables, layout.init(optimizer, variables["params"]))


def make_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    layout: Layout,
    training: Training,
) -> Callable:
    """Compiles a step.

    Args:
        model: as in `start`.
        optimizer: as in `start`.
        layout: as in `start`.
        training: an example, on its devices.

    Returns:
        A function of a `Training`, which is donated, images and labels, that
        returns the next one, on the same devices, and the loss.
    """
    plain = make_loss(model)

    def loss(params, variables, images, labels):
        return plain(layout.gather(params), variables, images, labels)

    update = make_update(loss, optimizer)

    def step(training: Training, images, labels):
        images = image_arrays.standardize(images)
        following, value = update(training, images, labels)
        return Training(*following), value

    stay = jax.tree.map(lambda x: x.sharding, training), None
    return jax.jit(step, donate_argnums=0, out_shardings=stay)


def make_evaluate(model: nn.Module, layout: Layout) -> Callable:
    """Compiles the evaluation.

    Args:
        model: as in `start`.
        layout: as in `start`.

    Returns:
        A function of the variables and of batches of images, labels and
        weights (1, or 0 for an example that only fills the batch up), that
        returns the loss and the accuracy on all of them.
    """

    @jax.jit
    def sums(variables, images, labels, weights):
        variables = {**variables, "params": layout.gather(variables["params"])}
        images = image_arrays.standardize(images)
        logits: Any = model.apply(variables, images, train=False)
        right = (logits.argmax(-1) == labels).astype(weights.dtype)
        found = right, cross_entropy(logits, labels), jnp.ones_like(weights)
        return tuple(jnp.sum(x * weights) for x in found)

    def evaluate(variables, batches) -> dict[str, float]:
        found = np.array([sums(variables, *batch) for batch in batches])
        right, loss, count = found.sum(0, dtype=np.float64)
        return {
            "test_loss": float(loss / count),
            "test_accuracy": float(right / count),
        }

    return evaluate
