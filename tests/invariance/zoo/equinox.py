"""Networks in Equinox: layers of one example, output features first."""

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import nn
from jax import lax

from psi_optax import ScaleGroup

from .registry import (
    INERT,
    cross_entropy,
    fill,
    labels,
    leaky,
    net,
    normal,
    pair,
    tokens,
    vectors,
)

ROWS, MATRIX = ScaleGroup(1), ScaleGroup((0, 1))
FILTERS = ScaleGroup((1, 2, 3))
KEY = jax.random.key(0)


def shapes_of(make):
    """What `make()` makes, the shapes of the parameters, and all else."""
    made = eqx.filter_eval_shape(make)
    return eqx.partition(made, lambda x: isinstance(x, jax.ShapeDtypeStruct))


def classifier(make, x):
    """Cross entropy over a batch of a model that sees one example."""
    params, rest = shapes_of(make)

    def loss(params, x, y):
        return cross_entropy(jax.vmap(eqx.combine(params, rest))(x), y)

    return loss, fill(params), (x, labels(len(x)))


def with_state(make, x, *, used=False):
    """The same for a model with BatchNorm, fresh or after one batch."""
    (params, state), rest = shapes_of(nn.make_with_state(make))
    state = jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype), state)

    def apply(params, state, x):
        model, state = eqx.combine((params, state), rest)
        return jax.vmap(
            model,
            axis_name="batch",
            in_axes=(0, None),
            out_axes=(0, None),
        )(x, jax.tree.map(widen, state))

    def loss(params, state, x, y):
        return cross_entropy(apply(params, state, x)[0], y)

    params = fill(params)
    if used:
        _, state = apply(params, state, 2.0 * x)
    return loss, params, (state, x, labels(len(x)))


def widen(x):
    """Counters must be as wide as Python's integers are at present."""
    return x.astype(int) if jnp.issubdtype(x.dtype, jnp.integer) else x


def linear(inputs, outputs, bias=False):
    return nn.Linear(inputs, outputs, use_bias=bias, key=KEY)


def activation(function):
    return nn.Lambda(function)


def batch_norm(size, mode="batch"):
    return nn.BatchNorm(size, "batch", mode=mode)


def head(inputs):
    return nn.Linear(inputs, 3, key=KEY)


RELU = activation(jax.nn.relu)
LEAKY = activation(leaky)
GELU = activation(jax.nn.gelu)


def images_first(*shape):
    return normal(106, 4, *shape)


def flat(x):
    return x.mean(tuple(range(1, x.ndim)))


POOL = nn.Lambda(flat)


@net(
    "equinox_bn_mlp",
    {
        "layers/0/weight": ROWS,
        "layers/0/bias": INERT,
        **pair("layers/1/weight", "layers/1/bias"),
        "layers/3/weight": ROWS,
    },
)
def bn_mlp():
    def make():
        return nn.Sequential(
            [
                linear(4, 6, bias=True),
                batch_norm(6),
                RELU,
                linear(6, 5),
                batch_norm(5),
                LEAKY,
                head(5),
            ]
        )

    return with_state(make, vectors())


@net(
    "equinox_bn_cnn",
    {
        "layers/0/weight": FILTERS,
        "layers/0/bias": INERT,
        **pair("layers/1/weight", "layers/1/bias"),
        "layers/4/weight": FILTERS,
    },
)
def bn_cnn():
    def make():
        return nn.Sequential(
            [
                nn.Conv2d(3, 4, 3, key=KEY),
                batch_norm(4),
                RELU,
                nn.MaxPool2d(2),
                nn.Conv2d(4, 5, 2, use_bias=False, key=KEY),
                batch_norm(5),
                LEAKY,
                POOL,
                head(5),
            ]
        )

    return with_state(make, images_first(3, 6, 6))


@net("equinox_running_statistics")
def running_statistics():
    """In "ema" mode a batch is normalized by what other batches left too."""

    def make():
        return nn.Sequential(
            [linear(4, 6), batch_norm(6, mode="ema"), LEAKY, head(6)]
        )

    return with_state(make, vectors(), used=True)


@net(
    "equinox_grouped_conv",
    {"layers/0/weight": ScaleGroup((1, 2)), "layers/0/bias": INERT},
)
def grouped_conv():
    def make():
        return nn.Sequential(
            [
                nn.Conv1d(4, 6, 3, groups=2, key=KEY),
                batch_norm(6),
                LEAKY,
                POOL,
                head(6),
            ]
        )

    return with_state(make, images_first(4, 6))


@net("equinox_conv_transpose", {"layers/0/weight": FILTERS})
def conv_transpose():
    def make():
        return nn.Sequential(
            [
                nn.ConvTranspose2d(3, 4, 3, stride=2, use_bias=False, key=KEY),
                batch_norm(4),
                LEAKY,
                POOL,
                head(4),
            ]
        )

    return with_state(make, images_first(3, 3, 3))


@net(
    "equinox_relu_before_norm",
    {
        "layers/0/weight": ScaleGroup((1, 2, 3), tie="channels"),
        "layers/0/bias": ScaleGroup((1, 2), tie="channels"),
    },
)
def relu_before_norm():
    """Kernel and bias, of shape (channels, 1, 1), go through ReLU together."""

    def make():
        return nn.Sequential(
            [
                nn.Conv2d(3, 4, 2, key=KEY),
                RELU,
                batch_norm(4),
                GELU,
                POOL,
                head(4),
            ]
        )

    return with_state(make, images_first(3, 4, 4))


@net("equinox_prelu", {"layers/0/weight": ROWS})
def prelu():
    """A learned slope keeps the scale; it has one of its own."""

    def make():
        return nn.Sequential(
            [
                linear(4, 6),
                activation(nn.PReLU(0.3)),
                batch_norm(6),
                GELU,
                head(6),
            ]
        )

    return with_state(make, vectors())


@net(
    "equinox_ln_mlp",
    {
        "layers/0/weight": ScaleGroup((0, 1), tie="first"),
        "layers/0/bias": ScaleGroup(0, tie="first"),
        "layers/3/weight": MATRIX,
    },
)
def ln_mlp():
    def make():
        return nn.Sequential(
            [
                linear(4, 6, bias=True),
                nn.LayerNorm(6),
                GELU,
                linear(6, 5),
                nn.RMSNorm(5),
                GELU,
                head(5),
            ]
        )

    return classifier(make, vectors())


@net(
    "equinox_group_norm",
    {
        "layers/0/weight": ScaleGroup((0, 1, 2, 3), {0: 2}, tie="conv"),
        "layers/0/bias": ScaleGroup((0, 1, 2), {0: 2}, tie="conv"),
    },
)
def group_norm():
    def make():
        return nn.Sequential(
            [
                nn.Conv2d(3, 6, 2, key=KEY),
                nn.GroupNorm(2, 6),
                LEAKY,
                POOL,
                head(6),
            ]
        )

    return classifier(make, images_first(3, 4, 4))


@net(
    "equinox_weight_norm",
    {"layers/0/layer/weight": ROWS, "layers/2/layer/weight": MATRIX},
)
def weight_norm():
    def make():
        return nn.Sequential(
            [
                nn.WeightNorm(linear(4, 6, bias=True)),
                LEAKY,
                nn.WeightNorm(linear(6, 5, bias=True), axis=None),
                LEAKY,
                head(5),
            ]
        )

    return classifier(make, vectors())


class Attention(eqx.Module):
    """Attention with RMSNorm of the queries and keys of each head."""

    attention: nn.MultiheadAttention
    norm: nn.RMSNorm
    head: nn.Linear

    def __init__(self, normalized):
        self.attention = nn.MultiheadAttention(
            2, 4, qk_size=3, vo_size=3, use_query_bias=True, key=KEY
        )
        self.norm = nn.RMSNorm(3, use_weight=False, use_bias=False)
        self.head = head(4)
        if not normalized:
            self.norm = None

    def __call__(self, x):
        def process(q, k, v):
            both = jax.vmap(jax.vmap(self.norm))
            return both(q), both(k), v

        if self.norm is None:
            process = None
        x = self.attention(x, x, x, process_heads=process)
        return self.head(x.mean(0))


@net("equinox_attention")
def plain_attention():
    return classifier(lambda: Attention(False), normal(0, 5, 4, 4))


FLAT_HEADS = ScaleGroup((0, 1), {0: 2})


@net(
    "equinox_qk_norm",
    {
        "attention/query_proj/weight": ScaleGroup((0, 1), {0: 2}, tie="q"),
        "attention/query_proj/bias": ScaleGroup(0, {0: 2}, tie="q"),
        "attention/key_proj/weight": FLAT_HEADS,
    },
)
def qk_norm():
    """Flat kernels of shape (heads * dim, in)."""
    return classifier(lambda: Attention(True), normal(0, 5, 4, 4))


class Stack(eqx.Module):
    """Linear layers with LayerNorm, stacked for `lax.scan`."""

    layers: nn.Linear
    head: nn.Linear

    def __init__(self):
        keys = jax.random.split(KEY, 3)
        self.layers = eqx.filter_vmap(lambda k: nn.Linear(5, 5, key=k))(keys)
        self.head = head(5)

    def __call__(self, x):
        norm = nn.LayerNorm(5, use_weight=False, use_bias=False)

        def layer(x, linear):
            return jax.nn.gelu(norm(linear(x))), None

        return self.head(lax.scan(layer, x, self.layers)[0])


@net(
    "equinox_scan",
    {
        "layers/weight": ScaleGroup((1, 2), tie="layers"),
        "layers/bias": ScaleGroup(1, tie="layers"),
    },
)
def scan():
    """Each layer's kernel and bias have one scale."""
    return classifier(Stack, normal(0, 12, 5))


class Sentence(eqx.Module):
    """Tokens, each normalized, then their mean."""

    embedding: nn.Embedding
    norm: nn.RMSNorm
    head: nn.Linear

    def __init__(self):
        self.embedding = nn.Embedding(7, 5, key=KEY)
        self.norm = nn.RMSNorm(5, use_bias=False)
        self.head = head(5)

    def __call__(self, x):
        x = jax.vmap(lambda i: self.norm(self.embedding(i)))(x)
        return self.head(jax.nn.gelu(x).mean(0))


@net("equinox_embedding", {"embedding/weight": ROWS})
def embedding():
    return classifier(Sentence, tokens(6))


@net("equinox_mlp")
def mlp():
    """Nothing is normalized."""
    return classifier(
        lambda: nn.MLP(4, 3, 5, 2, activation=leaky, key=KEY),
        vectors(),
    )


class Shared(eqx.Module):
    """One layer three times over, RMSNorm behind each use."""

    layer: nn.Linear
    head: nn.Linear

    def __init__(self):
        self.layer, self.head = linear(4, 4), head(4)

    def __call__(self, x):
        norm = nn.RMSNorm(4, use_weight=False, use_bias=False)
        for _ in range(3):
            x = leaky(norm(self.layer(x)))
        return self.head(x)


@net("equinox_shared", {"layer/weight": MATRIX})
def shared():
    return classifier(Shared, vectors())


class SharedOutside(Shared):
    """The same layer once more, and no norm behind it."""

    def __call__(self, x):
        return super().__call__(x) + self.head(self.layer(x))


@net("equinox_shared_outside")
def shared_outside():
    return classifier(SharedOutside, vectors())
