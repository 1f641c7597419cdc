"""Small networks of each kind, in both frameworks, with the same weights."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx as flax_nnx

from psi_optax import find_groups
from psi_optax.models import linen, nnx
from psi_optax.models.architectures import (
    ConvolutionArchitecture,
    TransformerArchitecture,
    ViTArchitecture,
    cifar_resnet,
    imagenet_resnet,
)
from psi_optax.models.functions import squared_relu

CLASSES = 5

random = np.random.RandomState(0)
IMAGES = random.normal(size=(8, 16, 16, 3)).astype(np.float32)
LABELS = random.randint(0, CLASSES, len(IMAGES))
TOKENS = random.randint(0, CLASSES, (8, 6)).astype(np.int32)
NEXT_TOKENS = np.roll(TOKENS, -1, axis=1)


class Case(NamedTuple):
    """A network: its class, and the arguments of both frameworks."""

    name: str
    args: tuple
    in_features: int | None = 3

    @property
    def is_batch_normalized(self):
        return self.name not in ("ViT", "Transformer")

    @property
    def inputs(self):
        return TOKENS if self.name == "Transformer" else IMAGES

    @property
    def labels(self):
        return NEXT_TOKENS if self.name == "Transformer" else LABELS

    def linen(self, **options):
        return getattr(linen, self.name)(*self.args, **options)

    def nnx(self, **options):
        """Return a model without weights, for `load_linen`."""
        cls = getattr(nnx, self.name)
        first = () if self.in_features is None else (self.in_features,)
        return flax_nnx.eval_shape(
            lambda: cls(*first, *self.args, rngs=flax_nnx.Rngs(0), **options)
        )


def first_blocks(count, architecture):
    return architecture._replace(blocks=architecture.blocks[:count])


# A stem with max pooling, and two blocks: an identity, and one that halves the
# image.
BOTTLENECKS = imagenet_resnet(50, width=2)._replace(
    stem=ConvolutionArchitecture(8, 7, 2),
    blocks=imagenet_resnet(50, width=2).blocks[2:4],
)
# Three blocks: the first of the network, one within a stage, and one that
# halves the image.
BASIC = first_blocks(3, cifar_resnet(14, width=4))
# Two blocks: an identity, and a projection that halves the image.
PROJECTIONS = first_blocks(2, cifar_resnet(8, width=4, projection=True))
GPT = TransformerArchitecture(TOKENS.shape[1], 16, 1, 2)
# Each matrix but the head is scale-invariant.
SANDWICH = GPT._replace(
    activation=squared_relu, post_norms=True, tied_head=False
)

CASES = {
    "MLP": Case("MLP", ((6, 7), CLASSES), in_features=16 * 16 * 3),
    "CNN": Case("CNN", ((4, 6), CLASSES)),
    "VGG": Case("VGG", (((4,), (4, 6)), CLASSES)),
    "ResNet": Case("ResNet", (BASIC, CLASSES)),
    "Bottlenecks": Case("ResNet", (BOTTLENECKS, CLASSES)),
    "PreActResNet": Case("PreActResNet", (BASIC, CLASSES)),
    "Projections": Case("PreActResNet", (PROJECTIONS, CLASSES)),
    "ViT": Case("ViT", (ViTArchitecture(8, 16, 1, 2), CLASSES)),
    "GPT": Case("Transformer", (GPT, CLASSES), in_features=None),
    "Sandwich": Case("Transformer", (SANDWICH, CLASSES), in_features=None),
}
BATCH_NORMALIZED = [n for n, c in CASES.items() if c.is_batch_normalized]


@functools.cache
def variables_of(name):
    """Return random variables of the Linen model, without vectors of 0 or 1.

    The model's own initialization takes longer to compile.
    """
    model = CASES[name].linen()
    random = np.random.RandomState(1)

    def fill(x):
        values = random.uniform(0.2, 1.2, x.shape)
        if len(x.shape) > 1:
            fan_in = np.prod(x.shape[:-1])
            values = random.normal(size=x.shape) * np.sqrt(2 / fan_in)
        return jnp.asarray(values, x.dtype)

    def init(inputs):
        return model.init(jax.random.key(0), inputs, train=False)

    return jax.tree.map(fill, jax.eval_shape(init, CASES[name].inputs))


def apply(model, variables, inputs=IMAGES, train=True):
    """Return the logits and the updated running statistics."""
    logits, updates = model.apply(
        variables, inputs, train=train, mutable=["batch_stats"]
    )
    return logits, updates.get("batch_stats", {})


def params_of(model):
    return flax_nnx.to_pure_dict(flax_nnx.state(model, flax_nnx.Param))


def statistics_of(model):
    return flax_nnx.to_pure_dict(flax_nnx.state(model, flax_nnx.BatchStat))


def load_linen(model, variables):
    """Load the variables of the Linen twin into an NNX model."""
    for kind, collection in (
        (flax_nnx.Param, variables["params"]),
        (flax_nnx.BatchStat, variables.get("batch_stats", {})),
    ):
        state = flax_nnx.state(model, kind)
        flax_nnx.replace_by_pure_dict(state, collection)
        flax_nnx.update(model, state)


def cross_entropy(logits, labels=LABELS):
    return optax.softmax_cross_entropy_with_integer_labels(
        logits, labels
    ).mean()


def linen_loss(name, train=True, **options):
    """Return the loss as a function of the parameters."""
    case, variables = CASES[name], variables_of(name)
    model = case.linen(**options)

    def loss(params):
        variables_now = {**variables, "params": params}
        logits, _ = apply(model, variables_now, case.inputs, train)
        return cross_entropy(logits, case.labels)

    return loss


def nnx_loss(name, train=True, **options):
    """Return the loss of the NNX model as a function of the parameters."""
    model = CASES[name].nnx(**options)
    load_linen(model, variables_of(name))
    model.train() if train else model.eval()
    graph, params, rest = flax_nnx.split(model, flax_nnx.Param, ...)

    def loss(pure):
        state = jax.tree.map(lambda x: x, params)
        flax_nnx.replace_by_pure_dict(state, pure)
        merged = flax_nnx.merge(graph, state, rest, copy=True)
        return cross_entropy(merged(CASES[name].inputs), CASES[name].labels)

    return loss


@functools.cache
def found(name) -> Any:
    """Return the finder's report on the Linen model, by analysis."""
    params = variables_of(name)["params"]
    return find_groups(linen_loss(name), params, method="analysis")


def difference(a, b):
    """Return the largest difference relative to each array's maximum."""
    return max(
        float(np.abs(x - y).max() / np.abs(y).max())
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def shapes(tree):
    return jax.tree.map(jnp.shape, tree)


def count(tree):
    """Return the number of parameters."""
    return sum(x.size for x in jax.tree.leaves(tree))
