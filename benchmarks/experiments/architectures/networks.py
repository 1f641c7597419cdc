"""The architectures, and the groups of each that are advised."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from benchmarks import problems
from benchmarks.experiments.architectures import models, transformers
from benchmarks.problems import GPT2_SMALL, Problem
from psi_optax.models import linen
from psi_optax.models.architectures import (
    ViTArchitecture,
    imagenet_resnet,
    vgg,
)
from psi_optax.models.functions import squared_relu

_KERNELS = ".*/kernel"
# Of queries and keys. A "|" would end a cell of the table.
_HEADS = r".*/[qk]\w+/kernel"
_MATRICES = "layer_.*/kernel"

_VIT = ViTArchitecture(patch_size=16, width=768, depth=12, heads=12)


class Architecture(NamedTuple):
    """A network and the groups to keep.

    Attributes:
        title: its name in the table.
        make: makes the problem.
        select: pattern of the paths whose groups are advised; empty for none.
    """

    title: str
    make: Callable[[], Problem]
    select: str = ""


def _resnet(network: type[linen.ResNet] | type[linen.PreActResNet]) -> Problem:
    return problems.classifier(network(imagenet_resnet(50), 1000), 224)


_decoder = problems.transformer
_OWN_HEAD = GPT2_SMALL._replace(tied_head=False)
_POST_NORMS = GPT2_SMALL._replace(post_norms=True)

ARCHITECTURES = {
    "resnet": Architecture(
        "ResNet-50, BatchNorm", partial(_resnet, linen.ResNet), _KERNELS
    ),
    "pre_activation_resnet": Architecture(
        "ResNet-50, pre-activation",
        partial(_resnet, linen.PreActResNet),
        _KERNELS,
    ),
    "vgg": Architecture(
        "VGG-16, BatchNorm",
        lambda: problems.classifier(linen.VGG(vgg(16)), 32),
        _KERNELS,
    ),
    "group_norm_resnet": Architecture(
        "ResNet-50, GroupNorm",
        partial(_resnet, models.GroupNormResNet),
        _KERNELS,
    ),
    "graph_network": Architecture(
        "GCN, BatchNorm", models.graph_network, _KERNELS
    ),
    "discriminator": Architecture(
        "Discriminator, spectral norm", models.discriminator, _KERNELS
    ),
    "vit": Architecture("ViT-B/16, pre-norm", transformers.vit),
    "vit_qk_norm": Architecture(
        "ViT, QK-norm, fixed positions",
        lambda: problems.classifier(linen.ViT(_VIT, 1000), 224),
        _HEADS,
    ),
    "pre_norm": Architecture("Transformer, pre-norm", transformers.pre_norm),
    "experts": Architecture(
        "with experts (MoE)", transformers.mixture_of_experts
    ),
    "state_space": Architecture("with Mamba layers", transformers.state_space),
    "qk_norm": Architecture(
        "with QK-norm", partial(_decoder, _OWN_HEAD), _HEADS
    ),
    "post_norms": Architecture(
        "with QK-norm, post norms, squared ReLU",
        partial(
            _decoder,
            _POST_NORMS._replace(tied_head=False, activation=squared_relu),
        ),
        _MATRICES,
    ),
    "gpt2": Architecture(
        "GPT-2: tied head, fused attention", transformers.gpt2
    ),
    "qk_norm_tied": Architecture("tied head, QK-norm", _decoder, _HEADS),
    "post_norms_tied": Architecture(
        "tied head, QK-norm, post norms",
        partial(_decoder, _POST_NORMS),
        _MATRICES,
    ),
}
"""The architectures, by name."""
