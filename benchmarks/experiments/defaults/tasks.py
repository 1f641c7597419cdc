"""The tasks: networks, their data, and their losses on held-out data."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import psi_optax
from benchmarks import training
from benchmarks.experiments.language import text
from benchmarks.experiments.noisy_data import split
from benchmarks.recipes import graph_network
from psi_optax.models import linen
from psi_optax.models.architectures import (
    TransformerArchitecture,
    ViTArchitecture,
    cifar_resnet,
)

PARTS = "validation", "test"

_LENGTH, _PIECES = 32, 256

# Nodes whose labels train, four of each club, and the halves of the others.
_KNOWN = np.array([0, 1, 2, 3, 33, 32, 31, 30])
_HELD = np.random.RandomState(0).permutation(
    np.setdiff1d(np.arange(graph_network.NODES), _KNOWN)
)


class Task(NamedTuple):
    """A network on data.

    Attributes:
        init: returns params of a key.
        loss: of params and a batch.
        draw: returns batches, of a random state and their number.
        evaluate: returns for each part of `PARTS` the loss of params, and
            the accuracy in the test, as "accuracy".
        groups: scale groups of kernels.
    """

    init: Callable[[jax.Array], Any]
    loss: Callable[[Any, Any], jax.Array]
    draw: Callable[[np.random.RandomState, int], np.ndarray]
    evaluate: Callable[[Any], dict[str, jax.Array]]
    groups: Any


def _classifier(
    make: Callable[[int], nn.Module],
    dataset: str,
    sizes: tuple[int, int, int],
    batch_size: int = 64,
) -> Task:
    """Return a network on images, of training and validation part and pool."""
    tuning, final = split(dataset, *sizes, 0.0)
    model, whole = make(final.num_classes), None
    whole = training.make_loss(model)
    images, labels = map(jnp.asarray, (final.train_images, final.train_labels))
    parts = {
        name: (jnp.asarray(x.test_images), jnp.asarray(x.test_labels))
        for name, x in zip(PARTS, (tuning, final), strict=True)
    }

    def init(key):
        return model.init(key, images[:1], train=False)["params"]

    def loss(params, batch):
        return whole(params, {}, images[batch], labels[batch])[0]

    def draw(random, steps):
        return random.randint(len(labels), size=(steps, batch_size))

    def evaluate(params):
        # Statistics are those of all training images.
        _, statistics = model.apply(
            {"params": params}, images, train=True, mutable=["batch_stats"]
        )
        variables = {"params": params, **statistics}
        apply = partial(model.apply, variables, train=False)
        return _evaluate(
            {name: (apply(x), labels) for name, (x, labels) in parts.items()}
        )

    groups = training.kernel_groups(model, final.train_images)
    return Task(init, loss, draw, evaluate, groups.groups)


def _evaluate(
    found: dict[str, tuple[Any, jax.Array]],
) -> dict[str, jax.Array]:
    """Return losses and the test accuracy of logits and labels by part."""
    losses = {
        name: training.cross_entropy(*pair).mean()
        for name, pair in found.items()
    }
    logits, labels = found["test"]
    return losses | {"accuracy": (logits.argmax(-1) == labels).mean()}


def _without_memory(model: type[nn.Module], *options: Any) -> Callable:
    """Make a network whose statistics are those of the last batch."""
    return lambda classes: model(*options, classes, momentum=0.0)


def _language(batch_size: int = 16) -> Task:
    """Return a Transformer with normalized queries and keys, on text."""
    tokens = text.load()
    model = linen.Transformer(
        TransformerArchitecture(_LENGTH, 32, 2, 4), text.VOCABULARY
    )

    def init(key):
        example = jnp.zeros((1, _LENGTH), jnp.int32)
        return model.init(key, example, train=False)["params"]

    def predict(params, batch):
        logits = model.apply({"params": params}, batch[:, :-1], train=True)
        return logits, batch[:, 1:]

    def loss(params, batch):
        return training.cross_entropy(*predict(params, batch)).mean()

    def draw(random, steps):
        last = len(tokens.train) - _LENGTH
        starts = random.randint(last, size=(steps, batch_size))
        return text.windows(tokens.train, starts, _LENGTH)

    parts = {}
    for name in PARTS:
        part = getattr(tokens, name)
        starts = np.linspace(0, len(part) - _LENGTH - 1, _PIECES).astype(int)
        parts[name] = jnp.asarray(text.windows(part, starts, _LENGTH))

    def evaluate(params):
        return _evaluate({k: predict(params, x) for k, x in parts.items()})

    example = draw(np.random.RandomState(0), 1)[0]
    params = jax.eval_shape(init, jax.random.key(0))
    report = psi_optax.find_groups(loss, params, example)
    return Task(init, loss, draw, evaluate, report.select(".*/kernel").groups)


def _graph() -> Task:
    """Return a graph convolutional network on a graph of 34 nodes."""
    parts = dict(zip(PARTS, np.split(_HELD, 2), strict=True))

    def loss(params, batch):
        del batch
        return graph_network.loss(params, _KNOWN)

    def evaluate(params):
        logits, _ = graph_network.network(params)
        labels = jnp.asarray(graph_network.LABELS)
        return _evaluate({k: (logits[x], labels[x]) for k, x in parts.items()})

    return Task(
        graph_network.init_params,
        loss,
        lambda _, steps: np.zeros(steps),
        evaluate,
        graph_network.GROUPS,
    )


_DIGITS, _FASHION = (900, 298, 1), (2000, 1000, 2)

TASKS: dict[str, Callable[[], Task]] = {
    "MLP, digits": partial(
        _classifier, _without_memory(linen.MLP, (64, 64)), "digits", _DIGITS
    ),
    "CNN, Fashion-MNIST": partial(
        _classifier,
        _without_memory(linen.CNN, (8, 16, 32)),
        "fashion-mnist",
        _FASHION,
    ),
    "ResNet-8, Fashion-MNIST": partial(
        _classifier,
        _without_memory(linen.ResNet, cifar_resnet(8, 8)),
        "fashion-mnist",
        _FASHION,
    ),
    "ViT, digits": partial(
        _classifier,
        partial(linen.ViT, ViTArchitecture(2, 32, 2, 4)),
        "digits",
        _DIGITS,
    ),
    "Transformer, text": _language,
    "GCN, karate club": _graph,
}
"""Makers of the tasks, by name."""
