"""Networks in Flax NNX."""

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
    labels,
    leaky,
    net,
    normal,
    pair,
    tokens,
    vectors,
)

COLUMNS, MATRIX = ScaleGroup(0), ScaleGroup((0, 1))
FILTERS = ScaleGroup((0, 1, 2))


def classifier(make, x):
    """Cross entropy of a model's logits, in training mode."""
    model = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params, rest, x, y):
        return cross_entropy(nnx.merge(graph, params, rest)(x), y)

    return loss, fill(params), (fill(rest), x, labels(len(x)))


def batch_norm(size, rngs, affine=True):
    return nnx.BatchNorm(
        size,
        use_running_average=False,
        use_scale=affine,
        use_bias=affine,
        rngs=rngs,
    )


def linear(inputs, outputs, rngs, bias=False):
    return nnx.Linear(inputs, outputs, use_bias=bias, rngs=rngs)


def layer_norm(size, rngs):
    return nnx.LayerNorm(size, use_scale=False, use_bias=False, rngs=rngs)


def head(inputs, rngs):
    return nnx.Linear(inputs, 3, rngs=rngs)


def pool(x):
    return x.mean(tuple(range(1, x.ndim - 1)))


@net(
    "nnx_bn_mlp",
    {
        "layers/0/kernel": COLUMNS,
        "layers/0/bias": INERT,
        **pair("layers/1/scale", "layers/1/bias"),
        "layers/3/kernel": COLUMNS,
    },
)
def bn_mlp():
    def make(rngs):
        return nnx.Sequential(
            linear(4, 6, rngs, bias=True),
            batch_norm(6, rngs),
            nnx.relu,
            linear(6, 5, rngs),
            batch_norm(5, rngs),
            leaky,
            head(5, rngs),
        )

    return classifier(make, vectors())


@net(
    "nnx_bn_cnn",
    {
        "layers/0/kernel": FILTERS,
        "layers/0/bias": INERT,
        **pair("layers/1/scale", "layers/1/bias"),
        "layers/3/kernel": FILTERS,
    },
)
def bn_cnn():
    def make(rngs):
        return nnx.Sequential(
            nnx.Conv(3, 4, (3, 3), rngs=rngs),
            batch_norm(4, rngs),
            nnx.relu,
            nnx.Conv(4, 5, (3, 3), use_bias=False, rngs=rngs),
            batch_norm(5, rngs),
            leaky,
            pool,
            head(5, rngs),
        )

    return classifier(make, images())


@net("nnx_conv_transpose", {"layers/0/kernel": ScaleGroup((0, 1, 3))})
def conv_transpose():
    """A transposed kernel has its output channels before the input's."""

    def make(rngs):
        return nnx.Sequential(
            nnx.ConvTranspose(
                3, 4, (3, 3), use_bias=False, transpose_kernel=True, rngs=rngs
            ),
            batch_norm(4, rngs),
            leaky,
            pool,
            head(4, rngs),
        )

    return classifier(make, images(size=4))


@net("nnx_group_norm", {"layers/0/kernel": ScaleGroup((0, 1, 2, 3), {3: 3})})
def group_norm():
    def make(rngs):
        return nnx.Sequential(
            nnx.Conv(3, 6, (2, 2), use_bias=False, rngs=rngs),
            nnx.GroupNorm(6, num_groups=3, rngs=rngs),
            leaky,
            pool,
            head(6, rngs),
        )

    return classifier(make, images())


@net(
    "nnx_ln_mlp",
    {
        "layers/0/kernel": ScaleGroup((0, 1), tie="first"),
        "layers/0/bias": ScaleGroup(0, tie="first"),
        **pair("layers/1/scale", "layers/1/bias"),
        "layers/3/kernel": MATRIX,
    },
)
def ln_mlp():
    def make(rngs):
        return nnx.Sequential(
            linear(4, 6, rngs, bias=True),
            nnx.LayerNorm(6, rngs=rngs),
            leaky,
            linear(6, 5, rngs),
            nnx.RMSNorm(5, rngs=rngs),
            leaky,
            head(5, rngs),
        )

    return classifier(make, vectors())


@net("nnx_mlp")
def mlp():
    """Nothing is normalized."""

    def make(rngs):
        return nnx.Sequential(
            linear(4, 6, rngs, bias=True), nnx.gelu, head(6, rngs)
        )

    return classifier(make, vectors())


@net("nnx_frozen_norm")
def frozen_norm():
    def make(rngs):
        return nnx.Sequential(
            linear(4, 6, rngs, bias=True),
            nnx.BatchNorm(6, use_running_average=True, rngs=rngs),
            leaky,
            head(6, rngs),
        )

    return classifier(make, vectors())


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


@net("nnx_shared", {"layer/kernel": COLUMNS})
def shared():
    return classifier(Shared, vectors())


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


@net("nnx_experts", {"experts/kernel": ScaleGroup((1, 2))})
def experts():
    return classifier(Experts, vectors())


class Layer(nnx.Module):
    """One layer of a stack."""

    def __init__(self, rngs):
        self.linear = linear(5, 5, rngs)
        self.norm = batch_norm(5, rngs, affine=False)

    def __call__(self, x):
        return leaky(self.norm(self.linear(x)))


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


@net("nnx_scan", {"layers/linear/kernel": ScaleGroup(1)})
def scan():
    """BatchNorm behind every layer: a group for each layer and column."""
    return classifier(Stack, normal(0, 12, 5))


def attend(q, k, v):
    """Over (batch, time, heads, dim)."""
    weights = nnx.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k))
    x = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
    return x.reshape(*x.shape[:2], -1).mean(1)


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


@net(
    "nnx_qk_norm",
    {
        "query/kernel": ScaleGroup((0, 1), {1: 2}, tie="query"),
        "query/bias": ScaleGroup(0, {0: 2}, tie="query"),
        "key/kernel": ScaleGroup((0, 1), {1: 2}),
    },
)
def qk_norm():
    return classifier(FlatHeads, normal(0, 5, 4, 4))


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


@net("nnx_fused_qkv", {"qkv/kernel": PARTLY})
def fused_qkv():
    return classifier(FusedHeads, normal(0, 5, 4, 4))


class Transformer(nnx.Module):
    """A block with pre-norm and QK-norm on a stream of embedded tokens."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(7, 4, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            2,
            4,
            qkv_features=6,
            use_bias=False,
            normalize_qk=True,
            decode=False,
            keep_rngs=False,
            rngs=rngs,
        )
        self.norm = layer_norm(4, rngs)
        self.up, self.down = linear(4, 6, rngs), linear(6, 4, rngs)
        self.head = head(4, rngs)

    def __call__(self, x):
        x = self.embed(x)
        x = x + self.attention(self.norm(x))
        x = x + self.down(nnx.gelu(self.up(self.norm(x))))
        return self.head(nnx.gelu(self.norm(x)).mean(1))


COMMON = {
    "attention/query/kernel": ScaleGroup((0, 2)),
    "attention/key/kernel": ScaleGroup((0, 2)),
    "embed/embedding": ScaleGroup((0, 1), tie="stream"),
    "down/kernel": ScaleGroup((0, 1), tie="stream"),
}
SCALAR = ScaleGroup((0, 1, 2), tie="stream")


@net(
    "nnx_transformer",
    {**COMMON, "attention/out/kernel": SCALAR},
    ({**COMMON, "attention/value/kernel": SCALAR},),
)
def transformer():
    return classifier(Transformer, tokens(6))


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


@net("nnx_dropout", {"layer/kernel": COLUMNS})
def dropout():
    return classifier(Dropped, vectors())


class Recorded(nnx.Module):
    """A layer whose Variables are refs: a cache, and running statistics."""

    def __init__(self, rngs):
        self.hidden = linear(4, 6, rngs, bias=True)
        self.query, self.key = linear(6, 4, rngs), linear(6, 4, rngs)
        self.value = linear(6, 5, rngs)
        self.head = head(5, rngs)

    def __call__(self, x, mean):
        cache = nnx.Variable(jnp.zeros((len(x), 4), x.dtype), ref=True)
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
    {
        "hidden/kernel": COLUMNS,
        "hidden/bias": INERT,
        "value/kernel": MATRIX,
    },
)
def refs():
    model = nnx.eval_shape(lambda: Recorded(nnx.Rngs(0)))
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    mean = nnx.Variable(jnp.zeros(6), ref=True)
    x = vectors()

    def loss(params, x, y):
        return cross_entropy(nnx.merge(graph, params, rest)(x, mean), y)

    return loss, fill(params), (x, labels(len(x)))
