"""Networks with other normalizations that the package lacks."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

import psi_optax
from benchmarks.problems import Problem, array, cross_entropy
from psi_optax import reparametrize
from psi_optax.models import linen
from psi_optax.models.linen.layers import Layers

Params = dict[str, Any]

# -- a residual network with group normalization ------------------------------

NORM_GROUPS = 32


@dataclasses.dataclass(kw_only=True, unsafe_hash=True)
class GroupNormLayers(Layers):
    """Factory of layers with group normalization."""

    # The base class returns the other normalization.
    def norm(self, name: str) -> Any:
        """Return a group normalization."""
        return nn.GroupNorm(NORM_GROUPS, name=name, use_fast_variance=False)


class GroupNormResNet(linen.ResNet):
    """The package's residual network, with group normalization."""

    def layers(self, train: bool) -> GroupNormLayers:
        """Return the factory of the layers."""
        return GroupNormLayers(train=train, **self.keywords())


# -- a discriminator ----------------------------------------------------------

# Size, stride and width of each convolution.
CONVOLUTIONS = (
    *((3, 1, 64), (4, 2, 64), (3, 1, 128), (4, 2, 128)),
    *((3, 1, 256), (4, 2, 256), (3, 1, 512)),
)
_SLOPE = 0.1


def discriminator(
    convolutions: Sequence[tuple[int, int, int]] = CONVOLUTIONS,
    pixels: int = 32,
) -> Problem:
    """Return the hinge loss of a discriminator with spectral normalization.

    All kernels are divided by their largest singular values.

    References:
        Miyato et al., [Spectral normalization for generative adversarial
        networks](https://arxiv.org/abs/1802.05957), ICLR 2018, Table 3.
    """
    params, width_in, side = {}, 3, pixels
    for index, (size, stride, width) in enumerate(convolutions):
        kernel = array(size, size, width_in, width)
        params[f"conv_{index}"] = {"kernel": kernel, "bias": array(width)}
        width_in, side = width, side // stride
    params["head"] = {"kernel": array(side**2 * width_in, 1), "bias": array(1)}
    rows = psi_optax.output_channels(params, where=".*/kernel")

    def logits(p: Params, x: jax.Array) -> jax.Array:
        for index, (_, stride, _) in enumerate(convolutions):
            x = _convolve(p[f"conv_{index}"], x, stride)
            x = jax.nn.leaky_relu(x, _SLOPE)
        x = x.reshape(len(x), -1)
        return x @ p["head"]["kernel"] + p["head"]["bias"]

    def loss(p: Params, real: jax.Array, fake: jax.Array) -> jax.Array:
        p = reparametrize.spectral(p, rows, steps=1)
        hinge_real = jax.nn.relu(1 - logits(p, real))
        hinge_fake = jax.nn.relu(1 + logits(p, fake))
        return hinge_real.mean() + hinge_fake.mean()

    images = array(8, pixels, pixels, 3)
    return Problem(loss, params, (images, images))


def _convolve(p: Params, x: jax.Array, stride: int) -> jax.Array:
    """Return a convolution with a padding of one pixel, and a bias."""
    x = jax.lax.conv_general_dilated(
        x,
        p["kernel"],
        (stride, stride),
        [(1, 1), (1, 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return x + p["bias"]


# -- a graph network ----------------------------------------------------------


def graph_network(
    widths: Sequence[int] = (128, 256, 256, 40),
    nodes: int = 169_343,
    edges: int = 1_166_243,
) -> Problem:
    """Return a graph convolutional network with batch normalization.

    The sizes are by default those of the baseline on ogbn-arxiv.

    References:
        Kipf and Welling, [Semi-supervised classification with graph
        convolutional networks](https://arxiv.org/abs/1609.02907), ICLR 2017;
        Hu et al., [Open graph benchmark](https://arxiv.org/abs/2005.00687),
        NeurIPS 2020.
    """
    params: Params = {}
    depth = len(widths) - 1
    for index, width in enumerate(widths[1:]):
        kernel, vector = array(widths[index], width), array(width)
        params[f"conv_{index}"] = {"kernel": kernel, "bias": vector}
        if index < depth - 1:
            params[f"norm_{index}"] = {"scale": vector, "bias": vector}

    def loss(
        p: Params, x: jax.Array, edges: jax.Array, labels: jax.Array
    ) -> jax.Array:
        for index in range(depth):
            x = x @ p[f"conv_{index}"]["kernel"]
            x = _propagate(x, *edges) + p[f"conv_{index}"]["bias"]
            if index < depth - 1:
                x = jax.nn.relu(_batch_norm(p[f"norm_{index}"], x))
        return cross_entropy(x, labels)

    labels = array(nodes, dtype=jnp.int32)
    ends = array(2, edges, dtype=jnp.int32)
    return Problem(loss, params, (array(nodes, widths[0]), ends, labels))


def _batch_norm(p: Params, x: jax.Array) -> jax.Array:
    """Normalize each channel over all nodes."""
    x = x - x.mean(0, keepdims=True)
    x = x * jax.lax.rsqrt((x**2).mean(0, keepdims=True) + 1e-5)
    return x * p["scale"] + p["bias"]


def _propagate(
    x: jax.Array, senders: jax.Array, receivers: jax.Array
) -> jax.Array:
    """Sum over neighbours and the node, weighted by the ends' degrees."""
    ones = jnp.ones(len(receivers), x.dtype)
    degree = 1 + jax.ops.segment_sum(ones, receivers, len(x))
    weighted = x * jax.lax.rsqrt(degree)[:, None]
    total = jax.ops.segment_sum(weighted[senders], receivers, len(x))
    return (total + weighted) * jax.lax.rsqrt(degree)[:, None]
