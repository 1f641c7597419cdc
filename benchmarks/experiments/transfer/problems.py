"""The two problems: images with batch normalization, text with RMSNorm."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import psi_optax
from benchmarks import training
from benchmarks.experiments.language import text
from benchmarks.experiments.noisy_data import split
from benchmarks.experiments.transfer.points import Sizes
from psi_optax.groups.paths import map_with_path
from psi_optax.models import linen
from psi_optax.models.architectures import TransformerArchitecture

EPSILON = 1e-20
"""Epsilon of normalizations, whose scale invariance is then exact."""

HEAD = "head/kernel"
"""The last matrix, whose number of outputs does not grow with the width."""


class Problem(NamedTuple):
    """A network of one size, and its data.

    Attributes:
        init: compiled; returns variables, from a key.
        loss: of params, variables, data and a batch; returns the new statistics
            beside it.
        evaluate: compiled; the loss of variables on data that are held out.
        draw: returns batches of shape `(seeds, steps, batch)`, from seeds.
        data: of training.
        held_out: validation and test data, by name.
        groups: the proven scale groups of matrices.
        spheres: every hidden matrix as one group, proven or not.
        matrices: pattern of the paths of hidden matrices, both sides of which
            grow with the width.
    """

    init: Callable[[jax.Array], Any]
    loss: Callable[..., tuple[jax.Array, Any]]
    evaluate: Callable[[Any, Any], jax.Array]
    draw: Callable[[range], np.ndarray]
    data: Any
    held_out: dict[str, Any]
    groups: Any
    spheres: Any
    matrices: str


def mlp(settings: Any, sizes: Sizes) -> Problem:
    """Return a BatchNorm MLP on images that were made smaller."""
    held_out = settings.validation, settings.pool
    parts = _images(settings.dataset, settings.train, *held_out)
    tuning, final = parts
    widths = (sizes.width,) * sizes.depth
    model = linen.MLP(widths, tuning.num_classes, epsilon=EPSILON, momentum=0.9)
    images, of_images = tuning.train_images, training.make_loss(model)

    def init(key):
        return model.init(key, images[:1], train=False)

    def loss(params, variables, data, batch):
        return of_images(params, variables, *(x[batch] for x in data))

    def evaluate(variables, data):
        logits = model.apply(variables, data[0], train=False)
        return training.cross_entropy(logits, data[1]).mean()

    def draw(seeds):
        epochs = -(-sizes.steps // max(len(images) // sizes.batch, 1))
        order = len(images), sizes.batch, epochs, seeds
        return training.make_batches(*order)[:, : sizes.steps]

    groups = training.kernel_groups(model, images).groups
    return Problem(
        init=jax.jit(init),
        loss=loss,
        evaluate=jax.jit(evaluate),
        draw=draw,
        data=(images, tuning.train_labels),
        held_out={
            "validation": (tuning.test_images, tuning.test_labels),
            "test": (final.test_images, final.test_labels),
        },
        groups=groups,
        # Kernels of columns: the methods join those of a kernel.
        spheres=groups,
        # The first kernel's input does not grow.
        matrices=r"hidden_[1-9]\d*/kernel",
    )


_images = functools.cache(functools.partial(split, noise=0.0))


def language(settings: Any, sizes: Sizes) -> Problem:
    """Return a pre-norm, QK-norm Transformer on text, with heads of one size.

    It has a head of its own, so that all that is added to the residual stream
    is a proven joint group, beside the heads of queries and of keys.
    """
    length, loaded = settings.characters, text.load()
    heads = sizes.width // settings.head_dim
    model = linen.Transformer(
        TransformerArchitecture(
            length, sizes.width, sizes.depth, heads, tied_head=False
        ),
        text.VOCABULARY,
        epsilon=EPSILON,
    )

    def init(key):
        return model.init(key, jnp.zeros((1, length), int), train=False)

    def loss_of(params, pieces):
        logits: Any = model.apply(
            {"params": params}, pieces[:, :-1], train=True
        )
        return training.cross_entropy(logits, pieces[:, 1:]).mean()

    def loss(params, variables, data, batch):
        del variables
        pieces = data[batch[:, None] + jnp.arange(length + 1)[None]]
        return loss_of(params, pieces), {}

    def evaluate(variables, pieces):
        return loss_of(variables["params"], pieces)

    def draw(seeds):
        last, shape = len(loaded.train) - length, (sizes.steps, sizes.batch)
        randoms = (np.random.RandomState(seed) for seed in seeds)
        drawn = [random.randint(last, size=shape) for random in randoms]
        return np.stack(drawn).astype(np.int32)

    def held_out(tokens):
        last = len(tokens) - 1 - length
        starts = np.linspace(0, last, settings.pieces).astype(int)
        return text.windows(tokens, starts, length)

    params = jax.eval_shape(init, jax.random.key(0))["params"]
    piece = jax.ShapeDtypeStruct((2, length + 1), jnp.int32)
    report = psi_optax.find_groups(loss_of, params, piece)
    return Problem(
        init=jax.jit(init),
        loss=loss,
        evaluate=jax.jit(evaluate),
        draw=draw,
        data=loaded.train,
        held_out={
            "validation": held_out(loaded.validation),
            "test": held_out(loaded.test),
        },
        groups=report.select(".*(kernel|embedding)").groups,
        spheres=map_with_path(_sphere, params),
        matrices=r"layer_\d+/.*kernel",
    )


def _sphere(path: str, leaf: Any) -> psi_optax.ScaleGroup | None:
    """Return the whole leaf as one group, if it is a hidden matrix."""
    hidden = path.startswith("layer_") and path.endswith("/kernel")
    return psi_optax.ScaleGroup(tuple(range(leaf.ndim))) if hidden else None


PROBLEMS = {"mlp": mlp, "language": language}
"""The problems, by name."""

LABELS = {"mlp": "BatchNorm MLP", "language": "language model"}
"""Their names in tables and figures."""
