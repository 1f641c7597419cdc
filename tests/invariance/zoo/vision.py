"""Networks for images."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from psi_optax import ScaleGroup

from .linen import attention, classifier as linen_classifier, layer_norm, mlp
from .plain import (
    COLUMNS,
    FILTERS,
    HEADS,
    classifier,
    convolve,
    rms_norm,
    standardize,
    unit,
)
from .registry import INERT, given, images, leaky, normal, tied

# -- transformers of patches ----------------------------------------------


class ClassToken(nn.Module):
    """One more token, in front of the others."""

    @nn.compact
    def __call__(self, x):
        shape = (1, 1, x.shape[-1])
        token = self.param("token", nn.initializers.zeros, shape)
        token = jnp.broadcast_to(token, (len(x), *shape[1:]))
        return jnp.concatenate([token, x], 1)


class Positions(nn.Module):
    """A vector for each position is added."""

    @nn.compact
    def __call__(self, x):
        shape = (1, *x.shape[1:])
        return x + self.param("table", nn.initializers.zeros, shape)


VIT_WRITERS = tied(
    **{
        "patches/kernel": (0, 1, 2, 3),
        "patches/bias": (0,),
        "ClassToken_0/token": (0, 1, 2),
        "Positions_0/table": (0, 1, 2),
        "down/kernel": (0, 1),
    }
)
VIT_TIE = VIT_WRITERS["down/kernel"].tie


@linen_classifier(
    "linen_vit",
    VIT_WRITERS | {"attention/out/kernel": ScaleGroup((0, 1, 2), tie=VIT_TIE)},
    (
        VIT_WRITERS
        | {"attention/value/kernel": ScaleGroup((0, 1, 2), tie=VIT_TIE)},
    ),
    inputs=partial(images, size=4),
)
def vit(x):
    """The class token alone goes to the head.

    The stream of the patches ends in the attention: it has a scale of its own,
    but for the positions, of which the first is the class token's.
    """
    x = nn.Conv(5, (2, 2), (2, 2), name="patches")(x)
    x = Positions()(ClassToken()(x.reshape(len(x), -1, 5)))
    x = x + attention(use_bias=False, name="attention")(layer_norm()(x))
    x = x + mlp(layer_norm()(x))
    return nn.Dense(3, name="head")(nn.gelu(layer_norm()(x[:, 0])))


def stream(first, second):
    """Return the stream's writers, with one of each layer's attention."""
    writers = tied(
        patches=(0, 1),
        token=(0,),
        registers=(0, 1),
        positions=(0, 1),
        down1=(0, 1),
        down2=(0, 1),
    )
    heads = {first: ScaleGroup((0, 1, 2), tie="patches")}
    heads[second] = ScaleGroup((0, 1, 2), tie="patches")
    keys = ("query1", "key1", "query2", "key2")
    return writers | heads | dict.fromkeys(keys, HEADS)


@classifier(
    "plain_vit_registers",
    stream("out1", "out2"),
    (
        stream("out1", "value2"),
        stream("value1", "out2"),
        stream("value1", "value2"),
    ),
    inputs=(110, 6, 4, 5),
    patches=(5, 4),
    token=(4,),
    registers=(2, 4),
    positions=(5, 4),
    up=(4, 6),
    down1=(6, 4),
    down2=(6, 4),
    out1=(2, 3, 4),
    out2=(2, 3, 4),
    **{
        f"{name}{k}": normal(10 * k + i, 4, 2, 3)
        for k in (1, 2)
        for i, name in enumerate(("query", "key", "value"))
    },
)
def vit_registers(p, x):
    """A class token, two registers without positions, and four patches."""

    def layer(p, x, k):
        y = rms_norm(x)
        q, key, v = (
            jnp.einsum("bti,ihd->bthd", y, p[f"{name}{k}"])
            for name in ("query", "key", "value")
        )
        y = attend_all(rms_norm(q), rms_norm(key), v)
        x = x + jnp.einsum("bthd,hdo->bto", y, p[f"out{k}"])
        return x + jax.nn.gelu(rms_norm(x) @ p["up"]) @ p[f"down{k}"]

    x = x @ p["patches"]
    token = jnp.broadcast_to(p["token"], (len(x), 1, 4))
    x = jnp.concatenate([token, x], 1) + p["positions"][None]
    registers = jnp.broadcast_to(p["registers"], (len(x), 2, 4))
    x = jnp.concatenate([x[:, :1], registers, x[:, 1:]], 1)
    for k in (1, 2):
        x = layer(p, x, k)
    return rms_norm(x[:, 0])


def attend_all(q, k, v):
    """Over (batch, time, heads, dim), all of which are kept."""
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k))
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


def l2_normalize(x):
    """As PyTorch's: not by less than 1e-12."""
    norm = jnp.sqrt((x**2).sum(-1, keepdims=True))
    return x / jnp.maximum(norm, 1e-12)


SWIN = {
    **tied(query=(0, 2), query_bias=(1,)),
    "key": HEADS,
    **tied(down=(0, 1), down_bias=(0,)),
}


@classifier(
    "plain_swin_v2",
    SWIN | tied(out=(0, 1, 2), out_bias=(0,)),
    (SWIN | tied(value=(0, 1, 2), value_bias=(0, 1), out_bias=(0,)),),
    inputs=(111, 6, 4, 5),
    query=(5, 2, 3),
    query_bias=(2, 3),
    key=(5, 2, 3),
    value=(5, 2, 3),
    value_bias=(2, 3),
    logit_scale=np.full((2, 1, 1), 1.2),
    positions=(2, 4, 4),
    out=(2, 3, 5),
    out_bias=(5,),
    up=(5, 6),
    down=(6, 5),
    down_bias=(5,),
)
def swin_v2(p, x):
    """Cosine attention; each branch is normalized before it is added.

    The output's bias grows with the output or with the values.
    """
    q, k, v = (
        jnp.einsum("bti,ihd->bthd", x, p[name])
        for name in ("query", "key", "value")
    )
    q = q + p["query_bias"][None, None]
    v = v + p["value_bias"][None, None]
    cosines = jnp.einsum("bqhd,bkhd->bhqk", l2_normalize(q), l2_normalize(k))
    scale = jnp.exp(jnp.minimum(p["logit_scale"], jnp.log(100.0)))
    logits = cosines * scale[None] + p["positions"][None]
    y = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits), v)
    y = jnp.einsum("bthd,hdo->bto", y, p["out"])
    x = x + standardize(y + p["out_bias"][None, None], -1)
    y = jax.nn.gelu(x @ p["up"]) @ p["down"] + p["down_bias"][None, None]
    return jax.nn.gelu(x + standardize(y, -1)).mean(1)


DINO = {"prototypes": COLUMNS}


def with_teacher():
    return normal(113, 12, 4), jax.nn.softmax(normal(112, 12, 6))


@given(
    "plain_dino_head",
    DINO | tied(c=(0, 1), c_bias=(0,)),
    (
        DINO | tied(b=(0, 1), b_bias=(0,), c_bias=(0,)),
        DINO | tied(a=(0, 1), a_bias=(0,), b_bias=(0,), c_bias=(0,)),
    ),
    args=with_teacher,
    a=(4, 8),
    a_bias=(8,),
    b=(8, 7),
    b_bias=(7,),
    c=(7, 5),
    c_bias=(5,),
    prototypes=(5, 6),
)
def dino_head(p, x, teacher):
    """A perceptron with leaky ReLU, normalized, and cosines with prototypes.

    Each kernel grows with the biases behind it: all sets have the last one.
    """
    x = leaky(x @ p["a"] + p["a_bias"][None])
    x = leaky(x @ p["b"] + p["b_bias"][None])
    x = l2_normalize(x @ p["c"] + p["c_bias"][None])
    logits = x @ unit(p["prototypes"], 0) / 0.1
    return -(teacher * jax.nn.log_softmax(logits)).sum(-1).mean()


# -- convolutions ---------------------------------------------------------

CONVNEXT = {
    **tied(**{"stem/kernel": (0, 1, 2, 3), "stem/bias": (0,)}),
    **tied(**{"depthwise/kernel": (0, 1, 2, 3), "depthwise/bias": (0,)}),
}
CONVNEXT_STREAM = {
    "stem_norm/scale": (0,),
    "stem_norm/bias": (0,),
    "depthwise/bias": (0,),
}


class LayerScale(nn.Module):
    """A gain for each channel."""

    @nn.compact
    def __call__(self, x):
        shape = (1,) * (x.ndim - 1) + x.shape[-1:]
        return x * self.param("gain", nn.initializers.ones, shape)


@linen_classifier(
    "linen_convnext",
    CONVNEXT,
    tuple(
        {
            **tied(**{"stem/kernel": (0, 1, 2, 3), "stem/bias": (0,)}),
            **tied(**CONVNEXT_STREAM, **writers),
        }
        for writers in (
            {"LayerScale_0/gain": (0, 1, 2, 3)},
            {"down/kernel": (0, 1), "down/bias": (0,)},
        )
    ),
    inputs=partial(images, size=6),
)
def convnext(x):
    """The depthwise bias grows with its kernel, or with the whole stream."""
    x = nn.Conv(4, (2, 2), (2, 2), name="stem")(x)
    x = nn.LayerNorm(name="stem_norm")(x)
    y = nn.Conv(4, (3, 3), feature_group_count=4, name="depthwise")(x)
    y = nn.gelu(nn.Dense(6, name="up")(nn.LayerNorm(name="norm")(y)))
    x = x + LayerScale()(nn.Dense(4, name="down")(y))
    x = layer_norm()(x.mean((1, 2)))
    return nn.Dense(3, name="head")(nn.gelu(x))


@classifier(
    "plain_ghost_batch_norm",
    {"a": COLUMNS, "a_bias": INERT, "c": COLUMNS, "c_bias": INERT},
    a=(4, 6),
    a_bias=np.zeros(6),
    c=(6, 5),
    c_bias=np.zeros(5),
)
def ghost_batch_norm(p, x):
    """Statistics of a part of the batch: by a reshape, and by `jax.vmap`."""
    x = x @ p["a"] + p["a_bias"][None]
    parts = x.reshape(3, -1, x.shape[-1])
    x = leaky(standardize(parts, 1).reshape(x.shape))
    x = x @ p["c"] + p["c_bias"][None]
    each = jax.vmap(lambda part: standardize(part, 0))
    return leaky(each(x.reshape(2, -1, x.shape[-1])).reshape(x.shape))


@given(
    "plain_stylegan2",
    {"kernel": FILTERS, **tied(style=(0, 1), style_bias=(0,))},
    args=lambda: (normal(114, 6, 5), normal(115, 6, 2, 2, 3)),
    start=(4, 4, 3),
    kernel=(3, 3, 3, 4),
    bias=(4,),
    style=(5, 3),
    style_bias=np.ones(3),
    colours=(1, 1, 4, 3),
    colour_style=(5, 4),
    colour_style_bias=np.ones(4),
)
def stylegan2(p, latents, target):
    """A kernel for each example, its inputs scaled by a style.

    What that does to the size of the output is divided out again. The last
    kernel, which makes colours, has a style too, and no such division.
    """

    def modulated(x, kernel, style):
        return jax.vmap(
            lambda one, s: convolve(one[None], kernel * s[None, None, :, None])[
                0
            ]
        )(x, style)

    style = latents @ p["style"] + p["style_bias"][None]
    kernels = p["kernel"][None] * style[:, None, None, :, None]
    size = (kernels**2).sum((1, 2, 3), keepdims=True)
    kernels = kernels * lax.rsqrt(size + 1e-8)
    start = p["start"][None]
    x = jax.vmap(lambda kernel: convolve(start, kernel)[0])(kernels)
    x = leaky(x + p["bias"][None, None, None])
    style = latents @ p["colour_style"] + p["colour_style_bias"][None]
    x = modulated(x, p["colours"], style)
    return ((x - target) ** 2).mean()


@classifier(
    "plain_nf_net",
    {"a": FILTERS, "c": FILTERS},
    inputs=partial(images, size=6),
    a=(3, 3, 3, 4),
    a_gain=np.ones((1, 1, 1, 4)),
    a_bias=np.zeros(4),
    c=(3, 3, 4, 3),
    c_gain=np.ones((1, 1, 1, 3)),
    skip_gain=0.5,
)
def nf_net(p, x):
    """Scaled weight standardization; activations are not normalized."""

    def standardized(kernel, gain):
        inputs = kernel[..., 0].size
        mean = kernel.mean((0, 1, 2), keepdims=True)
        variance = kernel.var((0, 1, 2), keepdims=True)
        size = lax.rsqrt(jnp.maximum(variance * inputs, 1e-4))
        return (kernel - mean) * (size * gain)

    y = convolve(x, standardized(p["a"], p["a_gain"]))
    y = jax.nn.gelu(y + p["a_bias"][None, None, None]) * 1.7
    y = convolve(y, standardized(p["c"], p["c_gain"]))
    return jax.nn.gelu((x[:, 2:-2, 2:-2] + p["skip_gain"] * y).mean((1, 2)))
