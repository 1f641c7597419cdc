"""Known networks as training losses and shapes, on which nothing is computed.

ResNets in Flax Linen and in Flax NNX, from one plan and with the same paths,
and a decoder-only Transformer with QK-norm in Flax Linen. Each function that
returns a `Problem` makes one network: the loss of training, normalized by the
statistics of the batch, which returns the loss alone and no new statistics.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn, nnx

__all__ = [
    "Problem",
    "resnet8_linen",
    "resnet50_linen",
    "resnet50_nnx",
    "small_resnet_linen",
    "transformer_linen",
]


class Problem(NamedTuple):
    """A loss, called as loss(params, *args), and the shapes of what it takes.

    Attributes:
        loss: the loss of training.
        params: a tree of `jax.ShapeDtypeStruct`.
        args: the other arguments, such trees each.
    """

    loss: Callable[..., jax.Array]
    params: Any
    args: tuple[Any, ...]


def resnet50_linen(batch: int = 8, pixels: int = 224) -> Problem:
    """ResNet-50 v1.5 for ImageNet, in Flax Linen: 25,557,032 parameters."""
    return _classifier_linen(LinenResNet(RESNET50), batch, pixels)


def resnet50_nnx(batch: int = 8, pixels: int = 224) -> Problem:
    """ResNet-50 v1.5 for ImageNet, in Flax NNX: the same paths and shapes."""
    model = nnx.eval_shape(lambda: NnxResNet(RESNET50, nnx.Rngs(0)))
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params, rest, images, labels):
        return _cross_entropy(nnx.merge(graph, params, rest)(images), labels)

    return Problem(loss, params, (rest, *_images(batch, pixels)))


def resnet8_linen(batch: int = 8, pixels: int = 32) -> Problem:
    """ResNet-8, of basic blocks, for small images, in Flax Linen."""
    return small_resnet_linen(8, batch, pixels)


def small_resnet_linen(depth: int, batch: int = 8, pixels: int = 32) -> Problem:
    """Make a ResNet of basic blocks for small images, in Flax Linen.

    Args:
        depth: layers on the longest path, 6 n + 2: 20, 56 or 110.
        batch: images at once.
        pixels: height and width of an image.
    """
    plan = Plan(
        stem=Convolution(16, 3),
        pool=False,
        blocks=_stages(_basic, 16, (depth // 6,) * 3),
        classes=10,
    )
    return _classifier_linen(LinenResNet(plan), batch, pixels)


def transformer_linen(
    layers: int = 12,
    width: int = 768,
    heads: int = 12,
    vocabulary: int = 50257,
    length: int = 1024,
    batch: int = 8,
) -> Problem:
    """A Transformer that predicts the next token; by default GPT-2 small."""
    model = Transformer(layers, width, heads, vocabulary)
    tokens = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    params = _init(model, tokens)["params"]

    def loss(params, tokens):
        logits: Any = model.apply({"params": params}, tokens)
        return _cross_entropy(logits[:, :-1], tokens[:, 1:])

    return Problem(loss, params, (tokens,))


# -- ResNet -----------------------------------------------------------------


class Convolution(NamedTuple):
    """A convolution without bias, a BatchNorm behind it."""

    width: int
    size: int
    stride: int = 1


class Plan(NamedTuple):
    """A ResNet in numbers: its stem, the convolutions of its blocks, its head.

    Attributes:
        stem: the first convolution.
        pool: whether a 3x3 maximum of stride 2 follows it.
        blocks: the convolutions of each residual block.
        classes: number of outputs.
    """

    stem: Convolution
    pool: bool
    blocks: tuple[tuple[Convolution, ...], ...]
    classes: int

    def named(self) -> Iterator[tuple[str, int, tuple[Convolution, ...]]]:
        """Each block's name, the width that goes in, and its convolutions."""
        width = self.stem.width
        for index, block in enumerate(self.blocks):
            yield f"block_{index}", width, block
            width = block[-1].width


def _basic(width: int, stride: int) -> tuple[Convolution, ...]:
    return Convolution(width, 3, stride), Convolution(width, 3)


def _bottleneck(width: int, stride: int) -> tuple[Convolution, ...]:
    """Version 1.5: the stride is that of the 3x3 convolution."""
    return (
        Convolution(width, 1),
        Convolution(width, 3, stride),
        Convolution(4 * width, 1),
    )


def _stages(
    block: Callable[[int, int], tuple[Convolution, ...]],
    width: int,
    depths: tuple[int, ...],
) -> tuple[tuple[Convolution, ...], ...]:
    """The blocks of all stages: each halves the image, but for the first."""
    return tuple(
        block(width * 2**stage, 2 if stage and not index else 1)
        for stage, depth in enumerate(depths)
        for index in range(depth)
    )


RESNET50 = Plan(
    stem=Convolution(64, 7, 2),
    pool=True,
    blocks=_stages(_bottleneck, 64, (3, 4, 6, 3)),
    classes=1000,
)


def _shortcut(width: int, block: tuple[Convolution, ...]) -> Convolution | None:
    """The projection of a block's input, where its shape is another."""
    stride = max(c.stride for c in block)
    if stride == 1 and width == block[-1].width:
        return None
    return Convolution(block[-1].width, 1, stride)


class LinenNormed(nn.Module):
    """A convolution and its BatchNorm, in Linen."""

    convolution: Convolution

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Statistics are those of the batch."""
        width, size, stride = self.convolution
        x = nn.Conv(
            width,
            kernel_size=(size, size),
            strides=(stride, stride),
            padding=size // 2,
            use_bias=False,
            name="conv",
        )(x)
        return nn.BatchNorm(use_running_average=False, name="norm")(x)


class LinenBlock(nn.Module):
    """A residual block with a ReLU behind the sum, in Linen."""

    convolutions: tuple[Convolution, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The input, projected where it has to be, and what is added to it."""
        y = x
        for index, convolution in enumerate(self.convolutions):
            y = nn.relu(y) if index else y
            y = LinenNormed(convolution, name=f"layer_{index}")(y)
        shortcut = _shortcut(x.shape[-1], self.convolutions)
        if shortcut is not None:
            x = LinenNormed(shortcut, name="shortcut")(x)
        return nn.relu(x + y)


class LinenResNet(nn.Module):
    """A ResNet in training mode, in Linen."""

    plan: Plan

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of a batch of images (batch, height, width, channels)."""
        x = nn.relu(LinenNormed(self.plan.stem, name="stem")(x))
        x = _max_pool(x) if self.plan.pool else x
        for name, _, block in self.plan.named():
            x = LinenBlock(block, name=name)(x)
        return nn.Dense(self.plan.classes, name="head")(x.mean((1, 2)))


class NnxNormed(nnx.Module):
    """A convolution and its BatchNorm, in NNX."""

    def __init__(self, width_in: int, convolution: Convolution, rngs: nnx.Rngs):
        width, size, stride = convolution
        self.conv = nnx.Conv(
            width_in,
            width,
            kernel_size=(size, size),
            strides=(stride, stride),
            padding=size // 2,
            use_bias=False,
            rngs=rngs,
        )
        self.norm = nnx.BatchNorm(width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Statistics are those of the batch."""
        return self.norm(self.conv(x))


class NnxBlock(nnx.Module):
    """A residual block with a ReLU behind the sum, in NNX."""

    def __init__(
        self,
        width_in: int,
        convolutions: tuple[Convolution, ...],
        rngs: nnx.Rngs,
    ):
        widths = [width_in, *(c.width for c in convolutions)]
        self.depth = len(convolutions)
        # Attributes, not an nnx.List, so that the paths are those of Linen.
        for index, convolution in enumerate(convolutions):
            layer = NnxNormed(widths[index], convolution, rngs)
            setattr(self, f"layer_{index}", layer)
        shortcut = _shortcut(width_in, convolutions)
        self.shortcut = (
            NnxNormed(width_in, shortcut, rngs) if shortcut else None
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """The input, projected where it has to be, and what is added to it."""
        y = x
        for index in range(self.depth):
            y = nnx.relu(y) if index else y
            y = getattr(self, f"layer_{index}")(y)
        x = x if self.shortcut is None else self.shortcut(x)
        return nnx.relu(x + y)


class NnxResNet(nnx.Module):
    """A ResNet in training mode, in NNX."""

    def __init__(self, plan: Plan, rngs: nnx.Rngs, channels: int = 3):
        self.plan = plan
        self.stem = NnxNormed(channels, plan.stem, rngs)
        for name, width_in, block in plan.named():
            setattr(self, name, NnxBlock(width_in, block, rngs))
        width = plan.blocks[-1][-1].width
        self.head = nnx.Linear(width, plan.classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of a batch of images (batch, height, width, channels)."""
        x = nnx.relu(self.stem(x))
        x = _max_pool(x) if self.plan.pool else x
        for name, _, _ in self.plan.named():
            x = getattr(self, name)(x)
        return self.head(x.mean((1, 2)))


def _max_pool(x: jax.Array) -> jax.Array:
    padding = ((1, 1), (1, 1))
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=padding)


# -- Transformer --------------------------------------------------------------


class Attention(nn.Module):
    """Causal attention with an RMSNorm of the queries and keys of each head."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """What each position gathers from itself and those before it."""
        width = x.shape[-1]
        shape = self.heads, width // self.heads
        query, key, value = (
            nn.DenseGeneral(shape, use_bias=False, name=name)(x)
            for name in ("query", "key", "value")
        )
        query = nn.RMSNorm(name="query_norm")(query)
        key = nn.RMSNorm(name="key_norm")(key)
        x = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        out = nn.DenseGeneral(width, (-2, -1), use_bias=False, name="out")
        return out(x)


class Mlp(nn.Module):
    """Two linear maps with a GELU between them."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The hidden layer is four times as wide."""
        width = x.shape[-1]
        x = nn.gelu(nn.Dense(4 * width, use_bias=False, name="up")(x))
        return nn.Dense(width, use_bias=False, name="down")(x)


class TransformerLayer(nn.Module):
    """Attention and MLP, each behind a norm, added to the residual stream."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The stream with what this layer adds to it."""
        normed = nn.RMSNorm(name="attention_norm")(x)
        x = x + Attention(self.heads, name="attention")(normed)
        return x + Mlp(name="mlp")(nn.RMSNorm(name="mlp_norm")(x))


class Transformer(nn.Module):
    """A decoder with norms before its layers; the head is the embedding."""

    layers: int
    width: int
    heads: int
    vocabulary: int

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Logits of each position's next token, from tokens (batch, length)."""
        length = tokens.shape[-1]
        embed = nn.Embed(self.vocabulary, self.width, name="embed")
        positions = nn.Embed(length, self.width, name="positions")
        x = embed(tokens) + positions(jnp.arange(length))[None]
        for index in range(self.layers):
            x = TransformerLayer(self.heads, name=f"layer_{index}")(x)
        return embed.attend(nn.RMSNorm(name="final_norm")(x))


# -- losses -------------------------------------------------------------------


def _classifier_linen(model: nn.Module, batch: int, pixels: int) -> Problem:
    images, labels = _images(batch, pixels)
    variables = _init(model, images)

    def loss(params, statistics, images, labels):
        logits, _ = model.apply(
            {"params": params, "batch_stats": statistics},
            images,
            mutable=["batch_stats"],
        )
        return _cross_entropy(logits, labels)

    args = variables["batch_stats"], images, labels
    return Problem(loss, variables["params"], args)


def _init(model: nn.Module, x: jax.ShapeDtypeStruct) -> dict[str, Any]:
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x), x)


def _images(batch: int, pixels: int) -> tuple[jax.ShapeDtypeStruct, ...]:
    """The shapes of a batch of images, and of their labels."""
    return (
        jax.ShapeDtypeStruct((batch, pixels, pixels, 3), jnp.float32),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
    )


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return loss.mean()
