"""Networks in Haiku."""

from functools import partial

import haiku as hk
import jax
import jax.numpy as jnp

from psi_optax import ScaleGroup

from .registry import (
    INERT,
    PARTLY,
    cross_entropy,
    fill,
    images,
    inputs_of,
    labels,
    leaky,
    net,
    pair,
    tied,
    tokens,
    vectors,
)

COLUMNS, MATRIX = ScaleGroup(0), ScaleGroup((0, 1))
FILTERS = ScaleGroup((0, 1, 2))


def classify(forward, inputs=vectors):
    """Return the loss of a forward function, in training mode.

    Haiku's moving averages take a float to the power of an integer.
    """
    model = hk.without_apply_rng(hk.transform_with_state(forward))
    x = inputs_of(inputs)
    with jax.numpy_dtype_promotion("standard"):
        shapes, state = jax.eval_shape(model.init, jax.random.key(0), x)

    def loss(params, state, x, y):
        with jax.numpy_dtype_promotion("standard"):
            logits, _ = model.apply(params, state, x)
        return cross_entropy(logits, y)

    return loss, fill(shapes), (fill(state), x, labels(len(x)))


classifier = partial(net, build=classify)


def weights(group, *names):
    return {f"{name}/w": group for name in names}


def batch_norm(x, affine=True):
    return hk.BatchNorm(affine, affine, 0.9)(x, is_training=True)


def layer_norm(x, affine=False):
    return hk.LayerNorm(-1, affine, affine)(x)


def linear(x, width, name=None, bias=False):
    return hk.Linear(width, with_bias=bias, name=name)(x)


def pooled(x):
    """Means over the positions, and a linear head."""
    return linear(x.mean(tuple(range(1, x.ndim - 1))), 3, "head", bias=True)


@classifier(
    "haiku_bn_mlp",
    pair("batch_norm/scale", "batch_norm/offset", (0, 1))
    | weights(COLUMNS, "linear", "linear_1")
    | {"linear/b": INERT},
)
def bn_mlp(x):
    x = jax.nn.relu(batch_norm(linear(x, 6, bias=True)))
    x = jax.nn.relu(batch_norm(linear(x, 5)))
    return pooled(x)


@classifier(
    "haiku_bn_cnn",
    pair("batch_norm/scale", "batch_norm/offset", (0, 1, 2, 3))
    | weights(FILTERS, "conv2_d", "conv2_d_1")
    | {"conv2_d_1/b": INERT},
    inputs=images,
)
def bn_cnn(x):
    x = hk.Conv2D(4, 3, with_bias=False, padding="VALID")(x)
    x = hk.Conv2D(5, 3, padding="VALID")(jax.nn.relu(batch_norm(x)))
    return pooled(jax.nn.relu(batch_norm(x)))


@classifier(
    "haiku_depthwise",
    weights(FILTERS, "depthwise_conv2_d", "conv2_d")
    | {"depthwise_conv2_d/b": INERT},
    inputs=images,
)
def depthwise(x):
    x = hk.DepthwiseConv2D(2, 3, padding="VALID")(x)
    x = jax.nn.relu(batch_norm(x, affine=False))
    x = hk.Conv2D(4, 1, with_bias=False)(x)
    return pooled(jax.nn.relu(batch_norm(x)))


@classifier(
    "haiku_conv_3d",
    {"conv3_d/w": ScaleGroup((0, 1, 2, 3))},
    inputs=(0, 4, 3, 3, 3, 2),
)
def conv_3d(x):
    x = hk.Conv3D(4, 2, with_bias=False)(x)
    return pooled(jax.nn.relu(batch_norm(x)))


@classifier(
    "haiku_conv_transpose",
    {"conv2_d_transpose/w": ScaleGroup((0, 1, 3))},
    inputs=partial(images, size=3),
)
def conv_transpose(x):
    """Here the output channels come before the input's."""
    x = hk.Conv2DTranspose(4, 3, stride=2, with_bias=False)(x)
    return pooled(jax.nn.relu(batch_norm(x)))


@classifier(
    "haiku_ln_mlp",
    pair("layer_norm/scale", "layer_norm/offset")
    | weights(MATRIX, "linear_1")
    | tied({"linear/w": (0, 1), "linear/b": (0,)}),
)
def ln_mlp(x):
    x = linear(x, 6, bias=True)
    x = jax.nn.relu(layer_norm(x, affine=True))
    x = layer_norm(linear(x, 5), affine=True)
    return pooled(jax.nn.gelu(x))


@classifier(
    "haiku_rms_norm",
    weights(MATRIX, "linear", "linear_1") | {"rms_norm/scale": COLUMNS},
)
def rms_norm(x):
    x = leaky(hk.RMSNorm(-1)(linear(x, 6)))
    return pooled(jax.nn.gelu(hk.RMSNorm(-1)(linear(x, 5))))


@classifier(
    "haiku_group_norm",
    {
        "conv2_d/w": ScaleGroup((0, 1, 2, 3), {3: 2}, tie="conv"),
        "conv2_d/b": ScaleGroup(0, {0: 2}, tie="conv"),
    },
    inputs=images,
)
def group_norm(x):
    x = hk.Conv2D(6, 3, padding="VALID")(x)
    return pooled(jax.nn.relu(hk.GroupNorm(2)(x)))


@classifier(
    "haiku_instance_norm",
    weights(FILTERS, "conv2_d") | {"conv2_d/b": INERT},
    inputs=images,
)
def instance_norm(x):
    x = hk.Conv2D(4, 2, padding="VALID")(x)
    x = hk.InstanceNorm(create_scale=True, create_offset=True)(x)
    return pooled(jax.nn.relu(x))


@classifier(
    "haiku_embedding",
    {"embed/embeddings": ScaleGroup(1)},
    inputs=partial(tokens, 6),
)
def embedding(x):
    x = layer_norm(hk.Embed(7, 5)(x)).mean(1)
    return pooled(jax.nn.gelu(x))


@classifier(
    "haiku_positions",
    tied({"embed/embeddings": (0, 1), "~/positions": (0, 1)}),
    inputs=partial(tokens, 6),
)
def positions(x):
    """The sum of two tables is normalized: one scale for all of it."""
    x = hk.Embed(7, 5)(x) + places("positions")[None]
    return pooled(jax.nn.gelu(layer_norm(x)))


def places(name):
    shape = (4, 5)
    return hk.get_parameter(name, shape, init=jnp.zeros)


def attention(x, name="attention", bias=True):
    layer = hk.MultiHeadAttention(
        2, 3, model_size=5, w_init=jnp.zeros, with_bias=bias, name=name
    )
    return layer(x, x, x)


@classifier("haiku_attention", {"attention/key/b": INERT}, inputs=(0, 5, 4, 5))
def plain_attention(x):
    """A key's bias adds the same to all logits of a query."""
    return pooled(attention(x))


@classifier(
    "haiku_postnorm_transformer",
    tied(
        {
            "layer_norm/scale": (0,),
            "layer_norm/offset": (0,),
            "up/b": (0,),
            "down/b": (0,),
        }
    )
    | {"attention/key/b": INERT},
    inputs=(0, 5, 4, 5),
)
def postnorm_transformer(x):
    """ReLU passes a scale on: to the second sum, if the biases join in."""
    x = layer_norm(x + attention(x), affine=True)
    hidden = jax.nn.relu(linear(x, 6, "up", bias=True))
    x = layer_norm(x + linear(hidden, 5, "down", bias=True))
    return pooled(jax.nn.gelu(x))


@classifier(
    "haiku_prenorm_transformer",
    tied(
        {
            "first/w": (0, 1),
            "attention/linear/w": (0, 1),
            "attention/linear/b": (0,),
            "down/w": (0, 1),
            "down/b": (0,),
        }
    )
    | {"attention/key/b": INERT},
    (
        tied(
            {
                "first/w": (0, 1),
                "attention/linear/b": (0,),
                "attention/value/w": (0, 1),
                "attention/value/b": (0,),
                "down/w": (0, 1),
                "down/b": (0,),
            }
        )
        | {"attention/key/b": INERT},
    ),
    inputs=(0, 5, 4, 4),
)
def prenorm_transformer(x):
    """With biases: those of the values would take one leaf more."""
    x = linear(x, 5, "first")
    x = x + attention(layer_norm(x))
    hidden = jax.nn.gelu(linear(layer_norm(x), 6, "up", bias=True))
    x = x + linear(hidden, 5, "down", bias=True)
    return pooled(jax.nn.gelu(layer_norm(x)))


@classifier(
    "haiku_stack", {"stack/linear/w": ScaleGroup((1, 2))}, inputs=(0, 12, 5)
)
def stack(x):
    """`layer_stack`: one RMSNorm for each layer, without gains."""

    def layer(x):
        x = hk.RMSNorm(-1, create_scale=False)(linear(x, 5))
        return leaky(x)

    stacked = hk.layer_stack(3, name="stack")(layer)
    return pooled(stacked(x))


@classifier(
    "haiku_stack_of_gains",
    weights(ScaleGroup((1, 2)), "stack/linear")
    | {"stack/rms_norm/scale": PARTLY},
    inputs=(0, 12, 5),
)
def stack_of_gains(x):
    """The gains of all layers but the last feed another norm."""

    def layer(x):
        return leaky(hk.RMSNorm(-1)(linear(x, 5)))

    return pooled(hk.layer_stack(3, name="stack")(layer)(x))


NAMES = ("input", "hidden")


@classifier(
    "haiku_rnn",
    tied({"input/w": (0, 1), "hidden/w": (0, 1)}),
    inputs=(0, 5, 4, 4),
)
def rnn(x):
    """LayerNorm of the sum of what comes in and what is remembered."""
    layers = [hk.Linear(5, with_bias=False, name=n) for n in NAMES]
    norm = hk.LayerNorm(-1, True, True)

    def cell(x, state):
        total = layers[0](x) + layers[1](state)
        state = jnp.tanh(norm(total))
        return state, state

    start = jnp.full((len(x), 5), 0.5, x.dtype)
    x = x.swapaxes(0, 1)
    if hk.running_init():
        cell(x[0], start)
    return pooled(hk.dynamic_unroll(cell, x, start)[1])


@classifier("haiku_remat", weights(COLUMNS, "linear", "linear_1"))
def remat(x):
    def block(x):
        return jax.nn.relu(batch_norm(linear(x, 6), affine=False))

    for _ in range(2):
        x = hk.remat(block)(x)
    return pooled(x)
