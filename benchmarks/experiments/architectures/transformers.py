"""Networks with a residual stream that the package lacks.

A normalization stands before each branch and after the last one, and nowhere
else.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.experiments.architectures.branches import (
    Params,
    Part,
    attention,
    dense,
    experts,
    fused_attention,
    kernel,
    layer_norm,
    linear,
    perceptron,
    rms_norm,
)
from benchmarks.experiments.architectures.state_space import mamba
from benchmarks.problems import Problem, array, cross_entropy
from psi_optax.models.architectures import GPT2_VOCABULARY


class Sizes(NamedTuple):
    """Sizes of a language model; by default those of the smallest GPT-2."""

    length: int = 1024
    width: int = 768
    depth: int = 12
    heads: int = 12
    vocabulary: int = GPT2_VOCABULARY


class ViTSizes(NamedTuple):
    """Sizes of a vision Transformer; by default those of ViT-B/16."""

    patch: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    pixels: int = 224
    classes: int = 1000


SMALL, BASE = Sizes(), ViTSizes()


def pre_norm(sizes: Sizes = SMALL) -> Problem:
    """Return a Transformer without biases, with a head of its own."""
    attend = attention(sizes.width, sizes.heads, kernel, is_causal=True)
    branches = [attend, perceptron(sizes.width, kernel)]
    return _language_model(sizes, rms_norm(sizes.width), branches)


def mixture_of_experts(sizes: Sizes = SMALL) -> Problem:
    """Return the same with experts in place of perceptrons."""
    attend = attention(sizes.width, sizes.heads, kernel, is_causal=True)
    branches = [attend, experts(sizes.width)]
    return _language_model(sizes, rms_norm(sizes.width), branches)


def state_space(sizes: Sizes = SMALL) -> Problem:
    """Return the same with twice as many layers, of a state-space model."""
    sizes = sizes._replace(depth=2 * sizes.depth)
    return _language_model(sizes, rms_norm(sizes.width), [mamba(sizes.width)])


def gpt2(sizes: Sizes = SMALL) -> Problem:
    """Return a GPT-2: with biases, and a head that is tied to the embedding."""
    attend = fused_attention(sizes.width, sizes.heads)
    branches = [attend, perceptron(sizes.width, dense)]
    norm = layer_norm(sizes.width)
    return _language_model(sizes, norm, branches, tied_head=True)


def vit(sizes: ViTSizes = BASE) -> Problem:
    """Return a vision Transformer whose head reads a class token.

    References:
        Dosovitskiy et al., [An image is worth 16x16
        words](https://arxiv.org/abs/2010.11929), ICLR 2021.
    """
    patch, width, depth, heads, pixels, classes = sizes
    attend = attention(width, heads, dense, is_causal=False)
    branches = [attend, perceptron(width, dense)]
    layers, side = _layers(layer_norm(width), branches, depth), pixels // patch
    params = layers.params | {
        "patches": dense(patch, patch, 3, width),
        "token": array(1, 1, width),
        "positions": {"embedding": array(side**2 + 1, width)},
        "head": dense(width, classes),
    }

    def loss(p: Params, images: jax.Array, labels: jax.Array) -> jax.Array:
        x = images.reshape(-1, side, patch, side, patch, 3).swapaxes(2, 3)
        x = linear(p["patches"], x, 3).reshape(len(images), -1, width)
        token = jnp.broadcast_to(p["token"], (len(x), 1, width))
        x = jnp.concatenate([token, x], 1) + p["positions"]["embedding"]
        x = layers.apply(p, x)[:, 0]
        return cross_entropy(linear(p["head"], x), labels)

    images = array(8, pixels, pixels, 3), array(8, dtype=jnp.int32)
    return Problem(loss, params, images)


def _language_model(
    sizes: Sizes,
    norm: Part,
    branches: Sequence[Part],
    *,
    tied_head: bool = False,
) -> Problem:
    """Return a decoder with learned positions."""
    layers = _layers(norm, branches, sizes.depth)
    params = layers.params | {
        "embed": {"embedding": array(sizes.vocabulary, sizes.width)},
        "positions": {"embedding": array(sizes.length, sizes.width)},
    }
    if not tied_head:
        params["head"] = dense(sizes.width, sizes.vocabulary)

    def loss(p: Params, tokens: jax.Array) -> jax.Array:
        embedding = p["embed"]["embedding"]
        x = layers.apply(p, embedding[tokens] + p["positions"]["embedding"])
        head = {"kernel": embedding.T} if tied_head else p["head"]
        return cross_entropy(linear(head, x)[:, :-1], tokens[:, 1:])

    tokens = array(8, sizes.length, dtype=jnp.int32)
    return Problem(loss, params, (tokens,))


def _layers(norm: Part, branches: Sequence[Part], depth: int) -> Part:
    """Return layers that add branches to a stream, and a last norm."""
    layer: Params = {}
    for index, branch in enumerate(branches):
        layer[f"norm_{index}"] = norm.params
        layer[f"branch_{index}"] = branch.params
    params: Params = {f"layer_{index}": layer for index in range(depth)}

    def apply(p: Params, x: jax.Array) -> jax.Array:
        for layer in (p[f"layer_{index}"] for index in range(depth)):
            for index, branch in enumerate(branches):
                y = norm.apply(layer[f"norm_{index}"], x)
                x = x + branch.apply(layer[f"branch_{index}"], y)
        return norm.apply(p["norm"], x)

    return Part({**params, "norm": norm.params}, apply)
