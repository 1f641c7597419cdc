"""Training losses of the package's models, and the shapes of their arguments.

Nothing is computed: parameters and data are `jax.ShapeDtypeStruct`s.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn, nnx

from psi_optax.models import architectures, linen, nnx as nnx_models

GPT2_SMALL = architectures.GPT2_SMALL


class Problem(NamedTuple):
    """A training loss, called as loss(params, *args), and their shapes."""

    loss: Callable[..., jax.Array]
    params: Any
    args: tuple[Any, ...]


class Network(NamedTuple):
    """A problem: its title, what makes it, and its depth if that is varied."""

    title: str
    make: Callable[[], Problem]
    layers: int | None = None


def resnet50_linen() -> Problem:
    """Return ResNet-50 on 8 images of 224 x 224 pixels, in Linen."""
    architecture = architectures.imagenet_resnet(50)
    return classifier(linen.ResNet(architecture, 1000), 224)


def resnet50_nnx() -> Problem:
    """Return ResNet-50 on 8 images of 224 x 224 pixels, in NNX."""

    def make():
        architecture = architectures.imagenet_resnet(50)
        return nnx_models.ResNet(3, architecture, 1000, rngs=nnx.Rngs(0))

    graph, params, rest = nnx.split(nnx.eval_shape(make), nnx.Param, ...)

    def loss(params, rest, images, labels):
        return cross_entropy(nnx.merge(graph, params, rest)(images), labels)

    return Problem(loss, params, (rest, *_images(224)))


def small_resnet(depth: int) -> Problem:
    """Return a ResNet with projections on 8 images of 32 x 32, in Linen."""
    architecture = architectures.cifar_resnet(depth, projection=True)
    return classifier(linen.ResNet(architecture), 32)


def transformer(
    architecture: architectures.TransformerArchitecture = GPT2_SMALL,
    vocabulary: int = architectures.GPT2_VOCABULARY,
    batch: int = 8,
) -> Problem:
    """Return a decoder, by default of GPT-2's smallest size, in Linen."""
    model = linen.Transformer(architecture, vocabulary)
    tokens = array(batch, architecture.length, dtype=jnp.int32)

    def loss(params, tokens):
        logits: Any = model.apply({"params": params}, tokens, train=True)
        return cross_entropy(logits[:, :-1], tokens[:, 1:])

    return Problem(loss, _init(model, tokens)["params"], (tokens,))


def array(
    *shape: int, dtype: jax.typing.DTypeLike = jnp.float32
) -> jax.ShapeDtypeStruct:
    """Return the shape and dtype of an array."""
    return jax.ShapeDtypeStruct(shape, dtype)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean cross-entropy."""
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return loss.mean()


def classifier(model: nn.Module, pixels: int) -> Problem:
    """Return the loss on 8 images, without the new running statistics."""
    images, labels = _images(pixels)
    variables = _init(model, images)

    def loss(params, statistics, images, labels):
        variables = {"params": params, "batch_stats": statistics}
        logits, _ = model.apply(
            variables, images, train=True, mutable=["batch_stats"]
        )
        return cross_entropy(logits, labels)

    args = variables.get("batch_stats", {}), images, labels
    return Problem(loss, variables["params"], args)


def _init(model: nn.Module, x: jax.ShapeDtypeStruct) -> dict[str, Any]:
    def init(x):
        return model.init(jax.random.key(0), x, train=False)

    return jax.eval_shape(init, x)


def _images(pixels: int) -> tuple[jax.ShapeDtypeStruct, ...]:
    return array(8, pixels, pixels, 3), array(8, dtype=jnp.int32)
