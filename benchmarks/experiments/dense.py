"""Dense networks with and without batch normalization, and rescaled copies."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import psi_optax
from benchmarks import training
from psi_optax.models.functions import flatten
from psi_optax.models.linen.layers import BatchNormNetwork, head
from psi_optax.models.options import BatchNormKeywords

NETWORKS = {"BatchNorm": True, "no norm": False}
"""The networks that are compared, with whether they are normalized."""

EXACT: BatchNormKeywords = {"epsilon": 0.0, "momentum": 0.9}
"""Options of a batch normalization whose scale invariance is exact."""


class DenseNetwork(BatchNormNetwork):
    """Hidden linear maps, with a batch normalization or a bias, and a head.

    The columns of `hidden_i/kernel` are scale groups of the normalized network.

    Examples:
        >>> model = DenseNetwork((16,), normalized=False)
        >>> images = jnp.ones((4, 8, 8, 1))
        >>> variables = model.init(jax.random.key(0), images, train=False)
        >>> jax.tree.map(jnp.shape, variables["params"]["hidden_0"])
        {'bias': (16,), 'kernel': (64, 16)}
    """

    widths: tuple[int, ...] = (32, 32)
    num_classes: int = 10
    normalized: bool = True
    activation: Callable[[jax.Array], jax.Array] = jnp.tanh

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Return the logits of images `(batch, ...)`."""
        layers, x = self.layers(train), flatten(x)
        for index, width in enumerate(self.widths):
            name, bias = f"hidden_{index}", not self.normalized
            x = nn.Dense(width, use_bias=bias, name=name)(x)
            if self.normalized:
                x = layers.norm(f"norm_{index}")(x)
            x = self.activation(x)
        return head(x, self.num_classes, self.dtype)


def columns(params: Any) -> Any:
    """State the columns of the hidden kernels as groups.

    Without a normalization the loss depends on their norms. Then a measure in
    these groups is one along rotations of the columns.
    """
    return psi_optax.output_channels(params, where="hidden_.*/kernel")


def training_loss(model: nn.Module) -> Callable[..., jax.Array]:
    """Compile the mean cross-entropy in training mode.

    It is called as `loss(params, images, labels)`.
    """
    loss = training.make_loss(model)
    return jax.jit(lambda params, *batch: loss(params, {}, *batch)[0])


def rescale(params: Any, normalized: bool, power: int, seed: int = 0) -> Any:
    """Multiply columns of hidden kernels by powers of two, from 2^-power on.

    The function of the network does not change: without a normalization the
    biases are multiplied, and the next layer's rows divided, which needs an
    activation that is homogeneous, such as ReLU.
    """
    random, scaled = np.random.RandomState(seed), dict(params)
    for index in range(sum(name.startswith("hidden_") for name in params)):
        layer = scaled[f"hidden_{index}"]
        width = layer["kernel"].shape[-1]
        powers = random.randint(-power, power + 1, width)
        factors = jnp.asarray(2.0**powers, jnp.float32)
        scaled[f"hidden_{index}"] = {
            name: x * jnp.broadcast_to(factors, x.shape)
            for name, x in layer.items()
        }
        if not normalized:
            name = f"hidden_{index + 1}"
            name = name if name in params else "head"
            kernel = scaled[name]["kernel"] / factors[:, None]
            scaled[name] = {**scaled[name], "kernel": kernel}
    return scaled


def listed(values: Any, digits: int = 4) -> Any:
    """Return an array as lists of rounded numbers; None for non-finite ones.

    Examples:
        >>> listed(np.array([1.23456, np.nan]))
        [1.235, None]
    """
    values = np.asarray(values, float)
    if values.ndim:
        return [listed(x, digits) for x in values]
    return float(f"{values:.{digits}g}") if np.isfinite(values) else None
