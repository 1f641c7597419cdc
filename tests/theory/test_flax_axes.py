"""The axes of Flax's kernels: which groups the loss does not see.

Each layer is asked for its shapes by Flax's own `init`, and followed by a
normalization without epsilon. Groups are stated by `output_channels`, each
is multiplied by its own factor, and the loss must stay; for groups along other
axes it must not. Double precision: the loss is a sum of some hundreds of terms
of size 1, and rounding leaves 1e-13 of it.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import psi_optax
from tests.compilation import quick_jit
from tests.theory.networks import standardize

pytestmark = pytest.mark.usefixtures("x64")

options = {"use_bias": False, "dtype": "float64", "param_dtype": "float64"}
IMAGE, ROW, VOLUME = (6, 5, 5, 4), (6, 7, 4), (6, 4, 3, 3, 2)


def batch_norm(x):
    """Every channel, the last axis, over all others."""
    return standardize(x, tuple(range(x.ndim - 1)))


def unit_norm(x):
    """Every unit, whatever axes the units are along, over the batch."""
    return standardize(x, 0)


class Case(NamedTuple):
    layer: nn.Module
    inputs: tuple[int, ...]
    kernel: tuple[int, ...]  # The shape that Flax gives it.
    axis: int | tuple[int, ...]
    wrong: int | tuple[int, ...]  # Not invariant.
    norm: object = batch_norm


conv = functools.partial(nn.Conv, **options)
transpose = functools.partial(nn.ConvTranspose, **options)
general = functools.partial(nn.DenseGeneral, **options)

CASES = {
    "dense": Case(nn.Dense(3, **options), (6, 4), (4, 3), -1, 0),
    "conv": Case(conv(3, (2, 3)), IMAGE, (2, 3, 4, 3), -1, -2),
    "conv_1d": Case(conv(3, (2,)), ROW, (2, 4, 3), -1, -2),
    "conv_3d": Case(conv(3, (2, 2, 2)), VOLUME, (2, 2, 2, 2, 3), -1, -2),
    "grouped": Case(
        conv(6, (2, 3), feature_group_count=2), IMAGE, (2, 3, 2, 6), -1, -2
    ),
    "depthwise": Case(
        conv(8, (2, 3), feature_group_count=4), IMAGE, (2, 3, 1, 8), -1, 0
    ),
    "transpose": Case(transpose(3, (2, 3)), IMAGE, (2, 3, 4, 3), -1, -2),
    "transpose_kernel": Case(
        transpose(3, (2, 3), transpose_kernel=True),
        IMAGE,
        (2, 3, 3, 4),
        -2,
        -1,
    ),
    # One channel sees a kernel for every place: joint over all of them.
    "local": Case(
        nn.ConvLocal(3, (2, 2), padding="VALID", **options),
        (6, 3, 3, 2),
        (2, 2, 8, 3),
        -1,
        (0, 1, -1),
    ),
    "general_features": Case(
        general((2, 3)), (6, 4), (4, 2, 3), (-2, -1), 0, unit_norm
    ),
    "general_axes": Case(
        general(3, axis=(-2, -1)), (6, 2, 4), (2, 4, 3), -1, (0, -1)
    ),
}


def embed():
    """Columns of the table: the features are the channels, joint over words."""
    return nn.Embed(7, 3, dtype="float64", param_dtype="float64")


def inputs(shape):
    return np.random.RandomState(0).normal(size=shape)


def summary(x):
    """A number that sees every output, and its sign."""
    weights = np.cos(np.arange(x.size)).reshape(x.shape)
    return (weights * jnp.tanh(x + 0.3)).sum()


def change(loss, params, groups):
    """How much the loss changes when every group is rescaled on its own."""
    random = np.random.RandomState(1)

    def factors(w, group):
        if group is None:
            return w
        axes = [axis % w.ndim for axis in group.axes]
        shape = [1 if i in axes else n for i, n in enumerate(w.shape)]
        return w * 10 ** random.uniform(-1, 1, shape)

    scaled = jax.tree.map(factors, params, groups)
    assert not jax.tree.all(jax.tree.map(np.array_equal, params, scaled))
    return np.abs(loss(scaled) - loss(params))


def is_invariant(loss, params, groups):
    difference = change(loss, params, groups)
    # Anything in between would be neither.
    assert difference < 1e-11 or difference > 1e-3
    return difference < 1e-11


def init(layer, *args):
    """Random parameters of the shapes that Flax gives them."""
    shapes = jax.eval_shape(layer.init, jax.random.key(0), *args)["params"]
    random = np.random.RandomState(2)
    return jax.tree.map(lambda x: random.normal(size=x.shape), shapes)


@pytest.mark.parametrize("name", CASES)
def test_output_axes_of_kernels(name):
    case = CASES[name]
    x = inputs(case.inputs)
    params = init(case.layer, x)
    assert params["kernel"].shape == case.kernel

    @quick_jit
    def loss(params):
        return summary(case.norm(case.layer.apply({"params": params}, x)))

    right, wrong = (
        psi_optax.output_channels(params, where="kernel", axis=axis)
        for axis in (case.axis, case.wrong)
    )
    assert is_invariant(loss, params, right)
    assert not is_invariant(loss, params, wrong)


def test_embedding():
    words = np.random.RandomState(0).randint(0, 7, (20,))
    layer = embed()
    params = init(layer, words)

    @quick_jit
    def loss(params):
        return summary(batch_norm(layer.apply({"params": params}, words)))

    for axis, invariant in [(-1, True), (0, False)]:
        groups = psi_optax.output_channels(params, where="embedding", axis=axis)
        assert is_invariant(loss, params, groups) == invariant


ATTENTION = nn.MultiHeadDotProductAttention(
    num_heads=2, qkv_features=6, out_features=5, **options
)


def attention_loss(normalized):
    """Attention with units of one of its projections normalized."""
    x = inputs((4, 3, 4))

    def interceptor(call, args, kwargs, context):
        y = call(*args, **kwargs)
        # Over batch and positions: a unit is a head and an index in it.
        return (
            standardize(y, (0, 1)) if context.module.name == normalized else y
        )

    @quick_jit
    def loss(params):
        with nn.intercept_methods(interceptor):
            return summary(ATTENTION.apply({"params": params}, x))

    return loss, init(ATTENTION, x)


@pytest.mark.parametrize("projection", ["query", "key", "value"])
def test_attention_projections(projection):
    loss, params = attention_loss(projection)
    assert params[projection]["kernel"].shape == (4, 2, 3)
    for axis, invariant in [((-2, -1), True), (0, False)]:
        groups = psi_optax.output_channels(
            params, where=f"{projection}/kernel", axis=axis
        )
        assert is_invariant(loss, params, groups) == invariant
    # The axes are right only where a normalization follows.
    groups = psi_optax.output_channels(params, where="out/kernel", axis=-1)
    assert not is_invariant(loss, params, groups)


def test_attention_output():
    loss, params = attention_loss("out")
    assert params["out"]["kernel"].shape == (2, 3, 5)
    for axis, invariant in [(-1, True), ((-2, -1), False)]:
        groups = psi_optax.output_channels(
            params, where="out/kernel", axis=axis
        )
        assert is_invariant(loss, params, groups) == invariant
