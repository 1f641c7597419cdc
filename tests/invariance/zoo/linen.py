"""Networks in Flax Linen."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from psi_optax import ScaleGroup

from .registry import (
    INERT,
    PARTLY,
    cross_entropy,
    fill,
    following,
    images,
    inputs_of,
    labels,
    net,
    pair,
    tied,
    tokens,
    vectors,
)

COLUMNS, MATRIX = ScaleGroup(0), ScaleGroup((0, 1))
FILTERS = ScaleGroup((0, 1, 2))


class Compact(nn.Module):
    """A network from a function that makes layers as it goes."""

    forward: Callable

    @nn.compact
    def __call__(self, x):
        return self.forward(x)


def classify(forward, inputs=vectors, classes=lambda x: labels(len(x))):
    """Return the loss of a forward function, in training mode."""
    model, x = Compact(forward), inputs_of(inputs)
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = fill(jax.eval_shape(model.init, rngs, x))
    params = variables.pop("params")

    def loss(params, state, x, y):
        logits, _ = model.apply(
            {"params": params, **state},
            x,
            mutable=list(state),
            rngs={"dropout": jax.random.key(2)},
        )
        return cross_entropy(logits, y)

    return loss, params, (variables, x, classes(x))


classifier = partial(net, build=classify)


def kernels(group, *names):
    return {f"{name}/kernel": group for name in names}


def affine(name):
    return pair(f"{name}/scale", f"{name}/bias")


def batch_norm(affine=True, **options):
    return nn.BatchNorm(
        use_running_average=False, use_scale=affine, use_bias=affine, **options
    )


def conv(features, size=3, bias=False, **options):
    return nn.Conv(
        features, (size, size), padding="VALID", use_bias=bias, **options
    )


def dense(features, **options):
    return nn.Dense(features, use_bias=False, **options)


def layer_norm():
    return nn.LayerNorm(use_scale=False, use_bias=False)


def pooled(x):
    """Means over the positions, and a linear head."""
    axes = tuple(range(1, x.ndim - 1))
    return nn.Dense(3, name="head")(x.mean(axes))


@classifier(
    "linen_bn_mlp",
    affine("BatchNorm_0")
    | kernels(COLUMNS, "Dense_0", "Dense_1")
    | {"Dense_0/bias": INERT},
)
def bn_mlp(x):
    x = nn.relu(batch_norm()(nn.Dense(6)(x)))
    x = nn.relu(batch_norm()(dense(5)(x)))
    return nn.Dense(3)(x)


@classifier(
    "linen_bn_cnn",
    affine("BatchNorm_0")
    | kernels(FILTERS, "Conv_0", "Conv_1")
    | {"Conv_1/bias": INERT},
    inputs=images,
)
def bn_cnn(x):
    x = nn.relu(batch_norm()(conv(4)(x)))
    x = nn.relu(batch_norm()(conv(5, bias=True)(x)))
    return pooled(x)


@classifier("linen_smooth_activations", kernels(COLUMNS, "Dense_0", "Dense_1"))
def smooth_activations(x):
    """SiLU and GELU see the scale of what comes from BatchNorm."""
    x = nn.silu(batch_norm()(dense(6)(x)))
    x = nn.gelu(batch_norm()(dense(5)(x)))
    return pooled(x)


@classifier("linen_activation_before_norm")
def activation_before_norm(x):
    """BatchNorm comes too late: GELU has seen the scale."""
    x = batch_norm()(nn.gelu(nn.Dense(6)(x)))
    return pooled(x)


@classifier(
    "linen_relu_before_norm",
    tied({"Conv_0/kernel": (0, 1, 2), "Conv_0/bias": ()}),
    inputs=images,
)
def relu_before_norm(x):
    """Kernel and bias go through ReLU together, channel by channel."""
    return pooled(batch_norm()(nn.relu(conv(4, bias=True)(x))) ** 3)


@classifier(
    "linen_resnet",
    affine("a1_norm")
    | affine("b1_norm")
    | kernels(FILTERS, "stem", "a1", "a2", "b1", "b2", "shortcut")
    | tied(
        {
            "stem_norm/scale": (0,),
            "stem_norm/bias": (0,),
            "a2_norm/scale": (0,),
            "a2_norm/bias": (0,),
        }
    ),
    inputs=partial(images, size=4),
)
def resnet(x):
    """Activation after the sum; then a block whose shortcut is normalized.

    The first sum goes to convolutions with BatchNorm only, so that both its
    terms may grow together. The second one goes to the head.
    """

    def unit(x, name, affine=True):
        return batch_norm(affine, name=f"{name}_norm")(conv4(x, name))

    x = nn.relu(unit(x, "stem"))
    x = nn.relu(x + unit(nn.relu(unit(x, "a1")), "a2"))
    branch = unit(nn.relu(unit(x, "b1")), "b2", affine=False)
    return pooled(nn.relu(unit(x, "shortcut", affine=False) + branch))


STREAM = ScaleGroup((0, 1, 2), tie="stream")


@classifier(
    "linen_preactivation",
    kernels(STREAM, "stem", "a2", "b2") | kernels(FILTERS, "a1", "b1"),
    inputs=partial(images, size=4),
)
def preactivation(x):
    """All that is added up in a channel may grow together: BatchNorm reads."""

    def block(x, name):
        x = conv4(nn.relu(batch_norm(False)(x)), f"{name}1")
        return conv4(nn.relu(batch_norm(False)(x)), f"{name}2")

    x = conv4(x, "stem")
    x = x + block(x, "a")
    x = x + block(x, "b")
    return pooled(nn.relu(batch_norm()(x)))


def conv4(x, name):
    return nn.Conv(4, (3, 3), use_bias=False, name=name)(x)


@classifier(
    "linen_preactivation_affine",
    affine("BatchNorm_0")
    | kernels(STREAM, "stem", "last")
    | kernels(FILTERS, "first"),
    (
        affine("BatchNorm_0")
        | kernels(FILTERS, "first")
        | tied(
            {
                "stem/kernel": (0, 1, 2, 3),
                "BatchNorm_1/scale": (0,),
                "BatchNorm_1/bias": (0,),
            }
        ),
    ),
    inputs=partial(images, size=4),
)
def preactivation_affine(x):
    """A branch grows with its last kernel, or with its last BatchNorm."""
    x = conv4(x, "stem")
    branch = conv4(nn.relu(batch_norm()(x)), "first")
    x = x + conv4(nn.relu(batch_norm()(branch)), "last")
    return pooled(nn.relu(batch_norm()(x)))


@classifier(
    "linen_mobilenet",
    affine("BatchNorm_1")
    | kernels(FILTERS, "Conv_0", "Conv_1", "Conv_2")
    | tied({"BatchNorm_0/scale": (), "BatchNorm_0/bias": ()}),
    inputs=images,
)
def mobilenet(x):
    """Before a depthwise convolution every channel is by itself."""
    x = nn.relu(batch_norm()(conv(4, size=1)(x)))
    x = nn.relu(batch_norm()(conv(4, feature_group_count=4)(x)))
    x = nn.relu(batch_norm()(conv(5, size=1)(x)))
    return pooled(x)


@classifier(
    "linen_grouped_conv",
    pair("BatchNorm_0/scale", "BatchNorm_0/bias", (0,), {0: 2})
    | kernels(FILTERS, "Conv_0", "Conv_1"),
    inputs=images,
)
def grouped_conv(x):
    """Each group of channels is read by filters of its own."""
    x = nn.relu(batch_norm()(conv(4)(x)))
    x = nn.relu(batch_norm()(conv(6, feature_group_count=2)(x)))
    return pooled(x)


@classifier(
    "linen_conv_transpose",
    {"ConvTranspose_0/kernel": FILTERS},
    inputs=partial(images, size=3),
)
def conv_transpose(x):
    x = nn.ConvTranspose(4, (3, 3), strides=(2, 2), use_bias=False)(x)
    return pooled(nn.relu(batch_norm()(x)))


@classifier(
    "linen_conv_1d",
    kernels(MATRIX, "Conv_0") | {"Conv_0/bias": INERT},
    inputs=(0, 4, 6, 3),
)
def conv_1d(x):
    return pooled(nn.relu(batch_norm()(nn.Conv(4, (3,))(x))))


@classifier(
    "linen_conv_3d",
    {"Conv_0/kernel": ScaleGroup((0, 1, 2, 3))},
    inputs=(0, 4, 3, 3, 3, 2),
)
def conv_3d(x):
    x = nn.Conv(4, (2, 2, 2), use_bias=False)(x)
    return pooled(nn.relu(batch_norm()(x)))


@classifier(
    "linen_ln_mlp",
    kernels(MATRIX, "Dense_1")
    | tied({"Dense_0/kernel": (0, 1), "Dense_0/bias": (0,)}),
)
def ln_mlp(x):
    x = nn.gelu(nn.LayerNorm()(nn.Dense(6)(x)))
    x = nn.gelu(nn.LayerNorm()(dense(5)(x)))
    return pooled(x)


FIRST = {
    "Dense_0/kernel": ScaleGroup((0, 1), tie="first"),
    "Dense_0/bias": ScaleGroup(0, tie="first"),
}


@classifier(
    "linen_ln_relu_mlp",
    FIRST | tied({"Dense_1/kernel": (0, 1), "Dense_1/bias": (0,)}),
    (
        FIRST
        | tied(
            {
                "LayerNorm_0/scale": (0,),
                "LayerNorm_0/bias": (0,),
                "Dense_1/bias": (0,),
            }
        ),
    ),
)
def ln_relu_mlp(x):
    """The second bias grows with its kernel, or with what the kernel reads."""
    x = nn.relu(nn.LayerNorm()(nn.Dense(6)(x)))
    x = nn.leaky_relu(nn.LayerNorm()(nn.Dense(5)(x)), 0.1)
    return pooled(x)


@classifier(
    "linen_rms_norm",
    kernels(MATRIX, "Dense_0")
    | {"RMSNorm_0/scale": COLUMNS}
    | kernels(MATRIX, "Dense_1"),
)
def rms_norm(x):
    """The gain between two norms is a group alone: it has no bias."""
    x = nn.relu(nn.RMSNorm()(dense(6)(x)))
    x = nn.relu(nn.RMSNorm()(dense(5)(x)))
    return pooled(x)


@classifier(
    "linen_group_norm",
    affine("GroupNorm_0")
    | kernels(ScaleGroup((0, 1, 2, 3), {3: 3}), "Conv_1")
    | {
        "Conv_0/kernel": ScaleGroup((0, 1, 2, 3), {3: 2}, tie="Conv_0"),
        "Conv_0/bias": ScaleGroup(0, {0: 2}, tie="Conv_0"),
    },
    inputs=images,
)
def group_norm(x):
    x = nn.relu(nn.GroupNorm(2)(conv(4, bias=True)(x)))
    x = nn.relu(nn.GroupNorm(3)(conv(6, size=2)(x)))
    return pooled(x)


@classifier(
    "linen_instance_norm",
    kernels(FILTERS, "Conv_0") | {"Conv_0/bias": INERT},
    inputs=images,
)
def instance_norm(x):
    return pooled(nn.relu(nn.InstanceNorm()(conv(4, bias=True)(x))))


@classifier(
    "linen_weight_norm",
    kernels(COLUMNS, "Dense_0") | kernels(MATRIX, "Dense_1"),
)
def weight_norm(x):
    x = nn.relu(nn.WeightNorm(nn.Dense(6))(x))
    x = nn.relu(nn.WeightNorm(nn.Dense(5), feature_axes=None)(x))
    return pooled(x)


@classifier("linen_spectral_norm", {"Dense_0/kernel": MATRIX})
def spectral_norm(x):
    x = nn.SpectralNorm(nn.Dense(6))(x, update_stats=True)
    return pooled(nn.relu(x))


@classifier("linen_frozen_norm")
def frozen_norm(x):
    """In evaluation mode BatchNorm is a linear layer."""
    norm = nn.BatchNorm(use_running_average=True)
    return pooled(nn.relu(norm(nn.Dense(6)(x))))


@classifier(
    "linen_masked_norm",
    kernels(COLUMNS, "Dense_0") | {"Dense_0/bias": INERT},
    inputs=(0, 4, 4, 4),
)
def masked_norm(x):
    keep = jnp.broadcast_to(jnp.arange(4) < 3, x.shape[:2])[..., None]
    x = nn.relu(batch_norm()(nn.Dense(5)(x), mask=keep))
    return nn.Dense(3, name="head")(x.mean(1, where=keep))


@classifier(
    "linen_pooling",
    affine("BatchNorm_0")
    | kernels(FILTERS, "Conv_0", "Conv_1")
    | {"Conv_0/bias": INERT},
    inputs=partial(images, size=6),
)
def pooling(x):
    """Maxima and means take a positive factor along."""
    x = nn.max_pool(conv(4, bias=True)(x), (2, 2))
    x = nn.leaky_relu(batch_norm()(x))
    x = nn.pool(conv(5, size=2)(x), 0.0, lax.add, (2, 2), (1, 1), "VALID")
    return pooled(nn.leaky_relu(batch_norm()(x / 4.0)))


@classifier("linen_dropout", kernels(COLUMNS, "Dense_0", "Dense_1"))
def dropout(x):
    """Before BatchNorm and behind it, always the same units."""
    x = nn.Dropout(0.2, deterministic=False)(dense(6)(x))
    x = nn.relu(batch_norm(False)(x))
    x = dense(5)(nn.Dropout(0.2, deterministic=False)(x))
    return pooled(nn.relu(batch_norm()(x)))


@classifier(
    "linen_remat",
    kernels(
        COLUMNS, "CheckpointCompact_0/Dense_0", "CheckpointCompact_1/Dense_0"
    ),
)
def remat(x):
    def block(x):
        return nn.relu(batch_norm(False)(dense(6)(x)))

    for _ in range(2):
        x = nn.remat(Compact)(block)(x)
    return pooled(x)


@classifier("linen_mixed_precision", kernels(COLUMNS, "Dense_0", "Dense_1"))
def mixed_precision(x):
    for width in (6, 5):
        x = dense(width, dtype=jnp.bfloat16)(x)
        x = nn.relu(batch_norm(False)(x.astype(jnp.float32)))
    return pooled(x)


@classifier("linen_einsum", {"Einsum_0/kernel": ScaleGroup((0, 2))})
def einsum(x):
    """RMSNorm over the last axis: one group for each head."""
    x = nn.Einsum((4, 2, 3), "bi,ihd->bhd", use_bias=False)(x)
    x = nn.gelu(nn.RMSNorm()(x))
    return nn.DenseGeneral(3, axis=(-2, -1))(x)


class Cell(nn.RNNCellBase):
    """A simple recurrent cell, RMSNorm in front of its tanh."""

    @nn.compact
    def __call__(self, state, x):
        total = nn.Dense(5, name="input")(x)
        total += dense(5, name="hidden")(state)
        state = nn.tanh(nn.RMSNorm(name="norm")(total))
        return state, state

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        return jnp.zeros((*input_shape[:-1], 5), jnp.result_type(float))

    @property
    def num_feature_axes(self):
        return 1


@classifier(
    "linen_rnn",
    tied(
        {
            "Cell_0/input/kernel": (0, 1),
            "Cell_0/input/bias": (0,),
            "Cell_0/hidden/kernel": (0, 1),
        }
    ),
    inputs=(0, 5, 4, 4),
)
def rnn(x):
    """Input, state and bias are added up in front of the norm."""
    return nn.Dense(3, name="head")(nn.RNN(Cell())(x)[:, -1])


class Layer(nn.Module):
    """One layer of a stack under `nn.scan`."""

    @nn.compact
    def __call__(self, x, _):
        return nn.relu(nn.RMSNorm()(dense(5)(x))), None


@classifier(
    "linen_scan",
    kernels(ScaleGroup((1, 2)), "ScanLayer_0/Dense_0")
    | {"ScanLayer_0/RMSNorm_0/scale": PARTLY},
    inputs=(0, 16, 5),
)
def scan(x):
    """The gains feed the next norm, but for the last layer's."""
    stack = nn.scan(
        Layer,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        length=3,
    )
    return pooled(stack()(x, None)[0])


@classifier(
    "linen_embedding",
    {"Embed_0/embedding": ScaleGroup(1)},
    inputs=partial(tokens, 6),
)
def embedding(x):
    """Every token's row goes to RMSNorm as it is."""
    x = nn.RMSNorm()(nn.Embed(7, 5)(x)).mean(1)
    return nn.Dense(3)(nn.gelu(x))


@classifier(
    "linen_tied_embedding",
    {"Dense_0/kernel": MATRIX},
    inputs=tokens,
    classes=following,
)
def tied_embedding(x):
    """The table makes the logits too."""
    table = nn.Embed(7, 5)
    x = layer_norm()(nn.gelu(layer_norm()(dense(5)(table(x)))))
    return table.attend(x)


def attention(**options):
    return nn.MultiHeadDotProductAttention(2, qkv_features=6, **options)


@classifier(
    "linen_attention", {"attention/key/bias": INERT}, inputs=(0, 5, 4, 4)
)
def plain_attention(x):
    """A key's bias adds the same to all logits of a query."""
    return pooled(attention(name="attention")(x))


def head_pair(name):
    return {
        f"{name}/kernel": ScaleGroup((0, 2), tie=name),
        f"{name}/bias": ScaleGroup(1, tie=name),
    }


@classifier(
    "linen_qk_norm",
    head_pair("attention/query") | head_pair("attention/key"),
    inputs=(0, 5, 4, 4),
)
def qk_norm(x):
    """LayerNorm within each head: (in, heads, dim) kernels and their bias."""
    return pooled(attention(normalize_qk=True, name="attention")(x))


def stream(path, *axes):
    return {path: ScaleGroup(axes, tie="stream")}


WRITERS = {
    **stream("embed/embedding", 0, 1),
    **stream("positions/embedding", 0, 1),
    **stream("down/kernel", 0, 1),
}


@classifier(
    "linen_prenorm_transformer",
    WRITERS | stream("attention/out/kernel", 0, 1, 2),
    (WRITERS | stream("attention/value/kernel", 0, 1, 2),),
    inputs=partial(tokens, 6),
)
def prenorm_transformer(ids):
    """All that write into the residual stream, which only norms read.

    The attention's output grows with its output kernel or its value kernel.
    """
    x = nn.Embed(7, 5, name="embed")(ids)
    x = x + nn.Embed(4, 5, name="positions")(jnp.arange(4))[None]
    x = x + attention(use_bias=False, name="attention")(layer_norm()(x))
    x = x + mlp(layer_norm()(x))
    return pooled(nn.gelu(layer_norm()(x)))


def mlp(x):
    return dense(5, name="down")(nn.gelu(dense(6, name="up")(x)))


@classifier("linen_postnorm_transformer", inputs=(0, 5, 4, 5))
def postnorm_transformer(x):
    """Each sum is normalized, but its skipped part has another scale."""
    x = layer_norm()(x + attention(use_bias=False)(x))
    x = layer_norm()(x + mlp(x))
    return pooled(nn.gelu(x))


@classifier(
    "linen_normalized_branches",
    kernels(ScaleGroup((0, 1, 2)), "attention/out", "attention/value")
    | kernels(MATRIX, "down"),
    inputs=(0, 5, 4, 5),
)
def normalized_branches(x):
    """The branch is normalized before it is added to the stream."""
    x = x + layer_norm()(attention(use_bias=False, name="attention")(x))
    x = x + layer_norm()(mlp(x))
    return pooled(nn.gelu(x))


@classifier(
    "linen_postnorm_qk_norm",
    kernels(MATRIX, "first")
    | kernels(ScaleGroup((0, 2)), "attention/query", "attention/key"),
    inputs=(0, 5, 4, 4),
)
def postnorm_qk_norm(x):
    """With QK-norm and no bias, attention passes a scale on like a sum."""
    x = dense(5, name="first")(x)
    options = {"use_bias": False, "normalize_qk": True}
    x = x + attention(name="attention", **options)(x)
    x = layer_norm()(x)
    return pooled(nn.gelu(layer_norm()(x + mlp(x))))
