"""Networks in Flax NNX."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

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


def classify(make, inputs=vectors):
    """Return the loss of a model, or of layers, in training mode."""

    def model():
        made = make(nnx.Rngs(0))
        return nnx.Sequential(*made) if isinstance(made, tuple) else made

    graph, params, rest = nnx.split(nnx.eval_shape(model), nnx.Param, ...)

    def loss(params, rest, x, y):
        return cross_entropy(nnx.merge(graph, params, rest)(x), y)

    x = inputs_of(inputs)
    return loss, fill(params), (fill(rest), x, labels(len(x)))


classifier = partial(net, build=classify)


def batch_norm(size, rngs, affine=True):
    options = {"use_scale": affine, "use_bias": affine, "rngs": rngs}
    return nnx.BatchNorm(size, use_running_average=False, **options)


def linear(inputs, outputs, rngs, bias=False):
    return nnx.Linear(inputs, outputs, use_bias=bias, rngs=rngs)


def layer_norm(size, rngs):
    return nnx.LayerNorm(size, use_scale=False, use_bias=False, rngs=rngs)


def head(inputs, rngs):
    return nnx.Linear(inputs, 3, rngs=rngs)


def pool(x):
    return x.mean(tuple(range(1, x.ndim - 1)))


def normalized(kernel):
    """Return the answer of two layers with BatchNorm, the first biased."""
    first = {"layers/0/kernel": kernel, "layers/0/bias": INERT}
    gains = pair("layers/1/scale", "layers/1/bias")
    return first | gains | {"layers/3/kernel": kernel}


@classifier("nnx_bn_mlp", normalized(COLUMNS))
def bn_mlp(rngs):
    first = linear(4, 6, rngs, bias=True), batch_norm(6, rngs), nnx.relu
    return *first, linear(6, 5, rngs), batch_norm(5, rngs), leaky, head(5, rngs)


@classifier("nnx_bn_cnn", normalized(FILTERS), inputs=images)
def bn_cnn(rngs):
    first = nnx.Conv(3, 4, (3, 3), rngs=rngs), batch_norm(4, rngs), nnx.relu
    second = nnx.Conv(4, 5, (3, 3), use_bias=False, rngs=rngs)
    return *first, second, batch_norm(5, rngs), leaky, pool, head(5, rngs)


@classifier(
    "nnx_conv_transpose",
    {"layers/0/kernel": ScaleGroup((0, 1, 3))},
    inputs=partial(images, size=4),
)
def conv_transpose(rngs):
    """A transposed kernel has its output channels before the input's."""
    conv = nnx.ConvTranspose(
        3, 4, (3, 3), use_bias=False, transpose_kernel=True, rngs=rngs
    )
    return conv, batch_norm(4, rngs), leaky, pool, head(4, rngs)


@classifier(
    "nnx_group_norm",
    {"layers/0/kernel": ScaleGroup((0, 1, 2, 3), {3: 3})},
    inputs=images,
)
def group_norm(rngs):
    conv = nnx.Conv(3, 6, (2, 2), use_bias=False, rngs=rngs)
    norm = nnx.GroupNorm(6, num_groups=3, rngs=rngs)
    return conv, norm, leaky, pool, head(6, rngs)


@classifier(
    "nnx_ln_mlp",
    {
        **tied({"layers/0/kernel": (0, 1), "layers/0/bias": (0,)}),
        **pair("layers/1/scale", "layers/1/bias"),
        "layers/3/kernel": MATRIX,
    },
)
def ln_mlp(rngs):
    norms = nnx.LayerNorm(6, rngs=rngs), nnx.RMSNorm(5, rngs=rngs)
    first = linear(4, 6, rngs, bias=True), norms[0], leaky
    return *first, linear(6, 5, rngs), norms[1], leaky, head(5, rngs)


@classifier("nnx_mlp")
def mlp(rngs):
    """Nothing is normalized."""
    return linear(4, 6, rngs, bias=True), nnx.gelu, head(6, rngs)


@classifier("nnx_frozen_norm")
def frozen_norm(rngs):
    norm = nnx.BatchNorm(6, use_running_average=True, rngs=rngs)
    return linear(4, 6, rngs, bias=True), norm, leaky, head(6, rngs)


@classifier("nnx_shared", {"layer/kernel": COLUMNS})
class Shared(nnx.Module):
    """One layer twice, BatchNorm behind each use."""

    def __init__(self, rngs):
        self.layer = linear(4, 4, rngs)
        self.norms = nnx.List([batch_norm(4, rngs, False) for _ in range(2)])
        self.head = head(4, rngs)

    def __call__(self, x):
        for norm in self.norms:
            x = leaky(norm(self.layer(x)))
        return self.head(x)


@classifier("nnx_experts", {"experts/kernel": ScaleGroup((1, 2))})
class Experts(nnx.Module):
    """Experts made by `nnx.vmap`, their outputs normalized and mixed."""

    def __init__(self, rngs):
        keys = jax.random.split(jax.random.key(0), 3)
        make = nnx.vmap(lambda key: linear(4, 5, nnx.Rngs(key)))
        self.experts = make(keys)
        self.router = linear(4, 3, rngs)
        self.norm = nnx.RMSNorm(5, use_scale=False, rngs=rngs)
        self.head = head(5, rngs)

    def __call__(self, x):
        call = nnx.vmap(lambda expert, x: expert(x), in_axes=(0, None))
        each = leaky(self.norm(call(self.experts, x)))
        weights = nnx.softmax(self.router(x))
        return self.head(jnp.einsum("be,ebo->bo", weights, each))


class Layer(nnx.Module):
    """One layer of a stack."""

    def __init__(self, rngs):
        self.linear = linear(5, 5, rngs)
        self.norm = batch_norm(5, rngs, affine=False)

    def __call__(self, x):
        return leaky(self.norm(self.linear(x)))


@classifier(
    "nnx_scan", {"layers/linear/kernel": ScaleGroup(1)}, inputs=(0, 12, 5)
)
class Stack(nnx.Module):
    """Layers made by `nnx.vmap` and run by `nnx.scan`."""

    def __init__(self, rngs):
        keys = jax.random.split(jax.random.key(0), 3)
        self.layers = nnx.vmap(lambda key: Layer(nnx.Rngs(key)))(keys)
        self.head = head(5, rngs)

    def __call__(self, x):
        def step(x, layer):
            return layer(x)

        run = nnx.scan(step, in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return self.head(run(x, self.layers))


def attend(q, k, v):
    """Over (batch, time, heads, dim)."""
    weights = nnx.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k))
    x = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
    return x.reshape(*x.shape[:2], -1).mean(1)


@classifier(
    "nnx_qk_norm",
    {
        "query/kernel": ScaleGroup((0, 1), {1: 2}, tie="query"),
        "query/bias": ScaleGroup(0, {0: 2}, tie="query"),
        "key/kernel": ScaleGroup((0, 1), {1: 2}),
    },
    inputs=(0, 5, 4, 4),
)
class FlatHeads(nnx.Module):
    """Projections to (heads * dim), RMSNorm within each head."""

    def __init__(self, rngs):
        self.query, self.key, self.value = (
            linear(4, 6, rngs, bias) for bias in (True, False, True)
        )
        self.query_norm = nnx.RMSNorm(3, rngs=rngs)
        self.key_norm = nnx.RMSNorm(3, use_scale=False, rngs=rngs)
        self.head = head(6, rngs)

    def __call__(self, x):
        projections = self.query, self.key, self.value
        shape = (*x.shape[:2], 2, 3)
        q, k, v = (layer(x).reshape(shape) for layer in projections)
        return self.head(attend(self.query_norm(q), self.key_norm(k), v))


@classifier("nnx_fused_qkv", {"qkv/kernel": PARTLY}, inputs=(0, 5, 4, 4))
class FusedHeads(nnx.Module):
    """Queries, keys and values by one flat kernel."""

    def __init__(self, rngs):
        self.qkv = linear(4, 18, rngs)
        self.norm = nnx.RMSNorm(3, use_scale=False, rngs=rngs)
        self.head = head(6, rngs)

    def __call__(self, x):
        parts = jnp.split(self.qkv(x), 3, -1)
        q, k, v = (part.reshape(*x.shape[:2], 2, 3) for part in parts)
        return self.head(attend(self.norm(q), self.norm(k), v))


COMMON = {
    "attention/query/kernel": ScaleGroup((0, 2)),
    "attention/key/kernel": ScaleGroup((0, 2)),
    "embed/embedding": ScaleGroup((0, 1), tie="stream"),
    "down/kernel": ScaleGroup((0, 1), tie="stream"),
}
SCALAR = ScaleGroup((0, 1, 2), tie="stream")


@classifier(
    "nnx_transformer",
    {**COMMON, "attention/out/kernel": SCALAR},
    ({**COMMON, "attention/value/kernel": SCALAR},),
    inputs=partial(tokens, 6),
)
class Transformer(nnx.Module):
    """A block with pre-norm and QK-norm on a stream of embedded tokens."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(7, 4, rngs=rngs)
        options = {"normalize_qk": True, "decode": False, "keep_rngs": False}
        self.attention = nnx.MultiHeadAttention(
            2, 4, qkv_features=6, use_bias=False, rngs=rngs, **options
        )
        self.norm = layer_norm(4, rngs)
        self.up, self.down = linear(4, 6, rngs), linear(6, 4, rngs)
        self.head = head(4, rngs)

    def __call__(self, x):
        x = self.embed(x)
        x = x + self.attention(self.norm(x))
        x = x + self.down(nnx.gelu(self.up(self.norm(x))))
        return self.head(nnx.gelu(self.norm(x)).mean(1))


@classifier("nnx_dropout", {"layer/kernel": COLUMNS})
class Dropped(nnx.Module):
    """Dropout before BatchNorm: the same units are dropped at every call."""

    def __init__(self, rngs):
        self.layer = linear(4, 6, rngs)
        self.norm = batch_norm(6, rngs, affine=False)
        self.dropout = nnx.Dropout(0.2)
        self.head = head(6, rngs)

    def __call__(self, x):
        rngs = nnx.Rngs(dropout=1)
        return self.head(
            leaky(self.norm(self.dropout(self.layer(x), rngs=rngs)))
        )


def recorded(value):
    """Return a Variable that holds a ref."""
    # Until Flax 0.12.0 the option was `use_ref`.
    options = inspect.signature(nnx.Variable.__init__).parameters
    return nnx.Variable(
        value, **{"ref" if "ref" in options else "use_ref": True}
    )


class Recorded(nnx.Module):
    """A layer whose Variables are refs: a cache, and running statistics."""

    def __init__(self, rngs):
        self.hidden = linear(4, 6, rngs, bias=True)
        self.query, self.key = linear(6, 4, rngs), linear(6, 4, rngs)
        self.value = linear(6, 5, rngs)
        self.head = head(5, rngs)

    def __call__(self, x, mean):
        cache = recorded(jnp.zeros((len(x), 4), x.dtype))
        h = self.hidden(x)
        center = h.mean(0, keepdims=True)
        mean[...] = (0.9 * mean[...] + 0.1 * center[0]).astype(mean.dtype)
        h = leaky((h - center) / jnp.sqrt(h.var(0, keepdims=True) + 1e-5))
        cache[...] = self.key(h)
        weights = jax.nn.softmax(self.query(h) @ cache[...].T)
        out = weights @ self.value(h)
        size = jnp.sum(out**2, axis=1, keepdims=True)
        return self.head(out / jnp.sqrt(size + 1e-6))


@net(
    "nnx_refs",
    {"hidden/kernel": COLUMNS, "hidden/bias": INERT, "value/kernel": MATRIX},
)
def refs():
    model = nnx.eval_shape(lambda: Recorded(nnx.Rngs(0)))
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    mean = recorded(jnp.zeros(6))
    x = vectors()

    def loss(params, x, y):
        return cross_entropy(nnx.merge(graph, params, rest)(x, mean), y)

    return loss, fill(params), (x, labels(len(x)))
