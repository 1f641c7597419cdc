"""Parameters and shapes of the full networks, without computation."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from psi_optax.models import linen, nnx as nnx_models
from psi_optax.models.architectures import (
    TransformerArchitecture,
    ViTArchitecture,
    cifar_resnet,
    imagenet_resnet,
    vgg,
)

from .twins import CASES, count, shapes, variables_of


class Case(NamedTuple):
    """A network, its input size and its published number of parameters."""

    name: str
    args: tuple
    pixels: int
    parameters: int


def cifar(name, architecture, parameters):
    return Case(name, (architecture,), 32, parameters)


def imagenet(name, architecture, parameters, *more):
    return Case(name, (architecture, 1000, *more), 224, parameters)


# For CIFAR the numbers behind Table 6 of He et al. (2015), which rounds them to
# two digits; for ImageNet the numbers of torchvision.
RESNETS = {
    "20": cifar("ResNet", cifar_resnet(20), 269_722),
    "32": cifar("ResNet", cifar_resnet(32), 464_154),
    "44": cifar("ResNet", cifar_resnet(44), 658_586),
    "56": cifar("ResNet", cifar_resnet(56), 853_018),
    "110": cifar("ResNet", cifar_resnet(110), 1_727_962),
    "20, preact": cifar("PreActResNet", cifar_resnet(20), 269_722),
    "18": imagenet("ResNet", imagenet_resnet(18), 11_689_512),
    "34": imagenet("ResNet", imagenet_resnet(34), 21_797_672),
    "50": imagenet("ResNet", imagenet_resnet(50), 25_557_032),
}
# These have a bias in each convolution, which BatchNorm subtracts. Ours have
# none, and BatchNorm has as many biases.
VGGS = {
    "11": cifar("VGG", vgg(11), 9_231_114),
    "16": cifar("VGG", vgg(16), 14_728_266),
    "11, large": imagenet("VGG", vgg(11), 132_868_840, (4096, 4096)),
    "16, large": imagenet("VGG", vgg(16), 138_365_992, (4096, 4096)),
}


def linen_shapes(name, args, pixels):
    """Return the shapes of the parameters and of the logits of two images."""
    model = getattr(linen, name)(*args)
    images = jax.ShapeDtypeStruct((2, pixels, pixels, 3), jnp.float32)

    def run(images):
        logits, variables = model.init_with_output(
            jax.random.key(0), images, train=False
        )
        return variables["params"], logits

    return jax.eval_shape(run, images)


def nnx_shapes(name, args):
    cls = getattr(nnx_models, name)
    model = nnx.eval_shape(lambda: cls(3, *args, rngs=nnx.Rngs(0)))
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


# They differ from depth 20 only in the number of blocks.
DEEPER = ("32", "44", "56", "110")


def check(case, missing=lambda params: 0):
    """Check the number of parameters, with those that are missing."""
    params, logits = linen_shapes(case.name, case.args, case.pixels)
    assert count(params) + missing(params) == case.parameters
    assert logits.shape == (2, 10 if case.pixels == 32 else 1000)
    return params


@pytest.mark.parametrize("depth", RESNETS)
def test_residual_networks_have_the_published_number(depth):
    case = RESNETS[depth]
    params = check(case)
    if depth not in DEEPER:
        assert shapes(nnx_shapes(case.name, case.args)) == shapes(params)


@pytest.mark.parametrize("depth", VGGS)
def test_vgg_has_the_published_number_without_biases(depth):
    def missing(params):
        layers = [p for name, p in params.items() if name.startswith("layer")]
        return sum(layer["norm"]["bias"].size for layer in layers)

    case = VGGS[depth]
    params = check(case, missing)
    assert shapes(nnx_shapes(case.name, case.args)) == shapes(params)


@pytest.mark.parametrize("name", ["MLP", "CNN"])
def test_hidden_layers_have_no_bias(name):
    taps = 1 if name == "MLP" else 9
    widths, classes = CASES[name].args
    sizes = (CASES[name].in_features, *widths)
    expected = sum(
        taps * fan_in * fan_out + 2 * fan_out
        for fan_in, fan_out in itertools.pairwise(sizes)
    )
    expected += (widths[-1] + 1) * classes
    assert count(variables_of(name)["params"]) == expected


def test_residual_networks_have_the_millions_of_the_paper():
    table = {"20": 0.27, "32": 0.46, "44": 0.66, "56": 0.85, "110": 1.7}
    for depth, millions in table.items():
        digits = 1 if depth == "110" else 2
        assert round(RESNETS[depth].parameters / 1e6, digits) == millions


def test_projections_have_parameters_of_their_own():
    # Two of them: 16 * 32 and 32 * 64 weights; scale and bias behind each.
    more = 16 * 32 + 32 * 64
    for name, norms in (("ResNet", 2 * (32 + 64)), ("PreActResNet", 0)):
        params, _ = linen_shapes(name, (cifar_resnet(20, projection=True),), 32)
        assert count(params) == 269_722 + more + norms
        assert {b for b in params if "shortcut" in params[b]} == {
            "block_3",
            "block_6",
        }


@pytest.mark.parametrize("heads", [2, 4])
def test_vit_has_the_number_in_its_description(heads):
    patch, width, depth, classes = 8, 32, 3, 7
    args = ViTArchitecture(patch, width, depth, heads), classes
    params, logits = linen_shapes("ViT", args, 16)
    layer = 12 * width**2 + 2 * width + 2 * width // heads
    head = (width + 1) * classes
    stem = 3 * patch**2 * width
    assert count(params) == stem + depth * layer + width + head
    assert logits.shape == (2, classes)
    assert shapes(nnx_shapes("ViT", args)) == shapes(params)


def transformer_shapes(args, length):
    """Return the shapes of the parameters and of the logits, in Linen."""
    model = linen.Transformer(*args)
    tokens = jax.ShapeDtypeStruct((2, length), jnp.int32)

    def run(tokens):
        logits, variables = model.init_with_output(
            jax.random.key(0), tokens, train=False
        )
        return variables["params"], logits

    return jax.eval_shape(run, tokens)


@pytest.mark.parametrize("post_norms", [False, True])
@pytest.mark.parametrize("tied_head", [False, True])
def test_transformer_has_the_number_in_its_description(post_norms, tied_head):
    length, width, depth, heads, vocabulary = 6, 32, 3, 4, 11
    architecture = TransformerArchitecture(
        length, width, depth, heads, post_norms=post_norms, tied_head=tied_head
    )
    params, logits = transformer_shapes((architecture, vocabulary), length)
    layer = 12 * width**2 + 2 * width + 2 * width // heads
    expected = (vocabulary + length) * width + depth * layer + width
    expected += post_norms * (2 * depth + 1) * width
    expected += (not tied_head) * vocabulary * (width + 1)
    assert count(params) == expected
    assert logits.shape == (2, length, vocabulary)


def test_a_transformer_takes_sequences_up_to_its_length():
    architecture = TransformerArchitecture(6, 16, 1, 2)
    params, logits = transformer_shapes((architecture, 11), 4)
    assert params["positions"]["embedding"].shape == (6, 16)
    assert logits.shape == (2, 4, 11)


def linen_decoder(architecture, length):
    return transformer_shapes((architecture, 11), length)


def nnx_decoder(architecture, length):
    tokens = jax.ShapeDtypeStruct((2, length), jnp.int32)

    def run(tokens):
        model = nnx_models.Transformer(architecture, 11, rngs=nnx.Rngs(0))
        return model(tokens)

    return jax.eval_shape(run, tokens)


@pytest.mark.parametrize("run", [linen_decoder, nnx_decoder])
@pytest.mark.parametrize(
    ("heads", "length", "message"),
    [(3, 6, "width=16, heads=3"), (2, 7, "2, 7.*length=6")],
)
def test_sequences_and_heads_that_do_not_fit_are_refused(
    run, heads, length, message
):
    with pytest.raises(ValueError, match=message):
        run(TransformerArchitecture(6, 16, 1, heads), length)


def test_a_network_takes_images_of_any_size():
    for name, args in (
        ("VGG", (vgg(11, 2),)),
        ("ResNet", (cifar_resnet(8, 2),)),
        ("PreActResNet", (cifar_resnet(8, 2),)),
    ):
        for pixels in (28, 33):
            assert linen_shapes(name, args, pixels)[1].shape == (2, 10)


def test_version_one_and_a_half_strides_in_the_3x3_convolution():
    blocks = imagenet_resnet(50).blocks
    for block in blocks:
        assert [c.size for c in block.convolutions] == [1, 3, 1]
        assert [c.stride for c in block.convolutions] == [1, block.stride, 1]
    assert [i for i, b in enumerate(blocks) if b.stride == 2] == [3, 7, 13]
    projected = [i for i, b in enumerate(blocks) if b.projection is not None]
    assert projected == [0, 3, 7, 13]
    for depth in (18, 34):
        blocks = imagenet_resnet(depth).blocks
        assert {len(b.convolutions) for b in blocks} == {2}
        strides = {tuple(c.stride for c in b.convolutions) for b in blocks}
        assert strides == {(1, 1), (2, 1)}


@pytest.mark.parametrize(
    ("make", "depth", "remedy"),
    [
        (vgg, 12, "11, 16"),
        (cifar_resnet, 18, "6n"),
        (cifar_resnet, 2, "6n"),
        (imagenet_resnet, 20, "18, 34, 50"),
    ],
)
def test_unknown_depths_are_refused(make, depth, remedy):
    with pytest.raises(ValueError, match=f"depth={depth}.*{remedy}"):
        make(depth)


def nnx_logits(name, args, pixels):
    cls = getattr(nnx_models, name)
    images = jax.ShapeDtypeStruct((2, pixels, pixels, 3), jnp.float32)

    def run(images):
        return cls(3, *args, rngs=nnx.Rngs(0))(images)

    return jax.eval_shape(run, images)


@pytest.mark.parametrize("run", [linen_shapes, nnx_logits])
@pytest.mark.parametrize(
    ("name", "args", "pixels", "message"),
    [
        ("VGG", (((2,),), 10, (8,)), 192, "96, 96.*224 x 224"),
        ("ViT", (ViTArchitecture(5, 16, 1, 2),), 32, "patch_size=5.*32, 32"),
        ("ViT", (ViTArchitecture(4, 16, 1, 3),), 32, "width=16, heads=3"),
        ("ViT", (ViTArchitecture(4, 18, 1, 3),), 32, "width=18, heads=3"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(run, name, args, pixels, message):
    with pytest.raises(ValueError, match=message):
        run(name, args, pixels)
