"""The networks that can be trained, by name."""

from collections.abc import Callable

from flax import linen as nn

from psi_optax.models import architectures
from psi_optax.models.linen import CNN, MLP, VGG, PreActResNet, ResNet, ViT

__all__ = ["NETWORKS"]

# Of 8 layers: to try things out.
_CIFAR_DEPTHS = (8, 20, 32, 44, 56, 110)
_IMAGENET_DEPTHS = (18, 34, 50)


def _vgg(depth: int) -> Callable[[int], nn.Module]:
    return lambda classes: VGG(architectures.vgg(depth), classes)


def _resnet(depth: int) -> Callable[[int], nn.Module]:
    large = depth in _IMAGENET_DEPTHS
    make = (
        architectures.imagenet_resnet if large else architectures.cifar_resnet
    )
    return lambda classes: ResNet(make(depth), classes)


def _preact_resnet(depth: int) -> Callable[[int], nn.Module]:
    return lambda n: PreActResNet(architectures.cifar_resnet(depth), n)


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "mlp": lambda classes: MLP(num_classes=classes),
    "cnn": lambda classes: CNN(num_classes=classes),
    "vit": lambda classes: ViT(num_classes=classes),
    **{f"vgg{depth}": _vgg(depth) for depth in (11, 16)},
    **{
        f"resnet{depth}": _resnet(depth)
        for depth in (*_CIFAR_DEPTHS, *_IMAGENET_DEPTHS)
    },
    **{
        f"preact_resnet{depth}": _preact_resnet(depth)
        for depth in _CIFAR_DEPTHS
    },
}
"""From the number of classes: those of 18, 34 and 50 layers for large images,
all other ResNets for small ones."""
