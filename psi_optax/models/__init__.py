"""Flax networks with normalization layers, for examples and verification.

`psi_optax.models.linen` and `psi_optax.models.nnx` have the same networks with
the same names, parameter paths, shapes and outputs:

- `MLP` and `CNN`, small, with batch normalization;
- `VGG`, `ResNet` and `PreActResNet`, with batch normalization, for the
  architectures of `psi_optax.models.architectures`: VGG-11 and 16; ResNet-20,
  32, 44, 56, 110 for CIFAR; ResNet-18, 34, 50 for ImageNet;
- `ViT` and `Transformer`, with RMSNorm, also of queries and keys.

They also have two normalization layers, `GroupBatchNorm` and
`WhitenedBatchNorm`. `psi_optax.models.functions` has normalizations without
parameters.

Convolutions and dense layers before a batch normalization have no bias: it
would have no effect. Their kernels have one scale group for each output
channel. The kernels of queries and keys have one scale group for each head. The
head is ordinary: it is not scale-invariant. `psi_optax.find_groups` finds these
groups, and those of other parameters, from the training loss.

Only this part of psi_optax imports Flax (`pip install psi_optax[flax]`).

Examples:
    >>> import jax, jax.numpy as jnp
    >>> from psi_optax.models import architectures, linen
    >>> model = linen.ResNet(architectures.imagenet_resnet(50), 1000)
    >>> images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    >>> init = lambda key, x: model.init(key, x, train=False)["params"]
    >>> params = jax.eval_shape(init, jax.random.key(0), images)
    >>> sum(x.size for x in jax.tree.leaves(params))
    25557032
"""

from psi_optax.models import architectures, linen, nnx

__all__ = ["architectures", "linen", "nnx"]
