"""Networks in Equinox: layers of one example, output features first."""

from functools import partial

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
    inputs_of,
    labels,
    leaky,
    net,
    pair,
    tied,
    tokens,
    vectors,
)

ROWS, MATRIX = ScaleGroup(1), ScaleGroup((0, 1))
FILTERS = ScaleGroup((1, 2, 3))
KEY = jax.random.key(0)


def shapes_of(make):
    """Return what is made, as shapes of the parameters and all else."""
    made = eqx.filter_eval_shape(make)
    return eqx.partition(made, lambda x: isinstance(x, jax.ShapeDtypeStruct))


def sequence(make):
    """Return a function that makes one module, of layers if it gets many."""

    def call():
        made = make()
        return nn.Sequential(made) if isinstance(made, tuple) else made

    return call


def classify(make, inputs=vectors):
    """Return the loss over a batch of a model that sees one example."""
    params, rest = shapes_of(sequence(make))

    def loss(params, x, y):
        return cross_entropy(jax.vmap(eqx.combine(params, rest))(x), y)

    x = inputs_of(inputs)
    return loss, fill(params), (x, labels(len(x)))


def classify_with_state(make, inputs=vectors, used=False):
    """Return the loss of a model with BatchNorm, fresh or after one batch."""
    (params, state), rest = shapes_of(nn.make_with_state(sequence(make)))
    state = jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype), state)

    def apply(params, state, x):
        model, state = eqx.combine((params, state), rest)
        axes = {"in_axes": (0, None), "out_axes": (0, None)}
        mapped = jax.vmap(model, axis_name="batch", **axes)
        return mapped(x, jax.tree.map(widen, state))

    def loss(params, state, x, y):
        return cross_entropy(apply(params, state, x)[0], y)

    params, x = fill(params), inputs_of(inputs)
    if used:
        _, state = apply(params, state, 2.0 * x)
    return loss, params, (state, x, labels(len(x)))


classifier = partial(net, build=classify)
stateful = partial(net, build=classify_with_state)


def widen(x):
    """Counters must be as wide as Python's integers are at present."""
    return x.astype(int) if jnp.issubdtype(x.dtype, jnp.integer) else x


def linear(inputs, outputs, bias=False):
    return nn.Linear(inputs, outputs, use_bias=bias, key=KEY)


def batch_norm(size, mode="batch"):
    return nn.BatchNorm(size, "batch", mode=mode)


def head(inputs):
    return nn.Linear(inputs, 3, key=KEY)


RELU = nn.Lambda(jax.nn.relu)
LEAKY = nn.Lambda(leaky)
GELU = nn.Lambda(jax.nn.gelu)


POOL = nn.Lambda(lambda x: x.mean(tuple(range(1, x.ndim))))


def normalized(kernel, second, third):
    """Return the answer of two layers with BatchNorm, the first biased."""
    gains = pair(f"layers/{second}/weight", f"layers/{second}/bias")
    first = {"layers/0/weight": kernel, "layers/0/bias": INERT}
    return first | gains | {f"layers/{third}/weight": kernel}


@stateful("equinox_bn_mlp", normalized(ROWS, 1, 3))
def bn_mlp():
    first = linear(4, 6, bias=True), batch_norm(6), RELU
    return *first, linear(6, 5), batch_norm(5), LEAKY, head(5)


@stateful("equinox_bn_cnn", normalized(FILTERS, 1, 4), inputs=(106, 4, 3, 6, 6))
def bn_cnn():
    first = nn.Conv2d(3, 4, 3, key=KEY), batch_norm(4), RELU, nn.MaxPool2d(2)
    second = nn.Conv2d(4, 5, 2, use_bias=False, key=KEY), batch_norm(5)
    return *first, *second, LEAKY, POOL, head(5)


@stateful("equinox_running_statistics", used=True)
def running_statistics():
    """In "ema" mode a batch is normalized by what other batches left too."""
    return linear(4, 6), batch_norm(6, mode="ema"), LEAKY, head(6)


@stateful(
    "equinox_grouped_conv",
    {"layers/0/weight": ScaleGroup((1, 2)), "layers/0/bias": INERT},
    inputs=(106, 4, 4, 6),
)
def grouped_conv():
    conv = nn.Conv1d(4, 6, 3, groups=2, key=KEY)
    return conv, batch_norm(6), LEAKY, POOL, head(6)


@stateful(
    "equinox_conv_transpose",
    {"layers/0/weight": FILTERS},
    inputs=(106, 4, 3, 3, 3),
)
def conv_transpose():
    conv = nn.ConvTranspose2d(3, 4, 3, stride=2, use_bias=False, key=KEY)
    return conv, batch_norm(4), LEAKY, POOL, head(4)


@stateful(
    "equinox_relu_before_norm",
    tied({"layers/0/weight": (1, 2, 3), "layers/0/bias": (1, 2)}),
    inputs=(106, 4, 3, 4, 4),
)
def relu_before_norm():
    """Kernel and bias, of shape (channels, 1, 1), go through ReLU together."""
    conv = nn.Conv2d(3, 4, 2, key=KEY)
    return conv, RELU, batch_norm(4), GELU, POOL, head(4)


@stateful("equinox_prelu", {"layers/0/weight": ROWS})
def prelu():
    """A learned slope keeps the scale; it has one of its own."""
    slope = nn.Lambda(nn.PReLU(0.3))
    return linear(4, 6), slope, batch_norm(6), GELU, head(6)


@classifier(
    "equinox_ln_mlp",
    tied({"layers/0/weight": (0, 1), "layers/0/bias": (0,)})
    | {"layers/3/weight": MATRIX},
)
def ln_mlp():
    first = linear(4, 6, bias=True), nn.LayerNorm(6), GELU
    return *first, linear(6, 5), nn.RMSNorm(5), GELU, head(5)


@classifier(
    "equinox_group_norm",
    {
        "layers/0/weight": ScaleGroup((0, 1, 2, 3), {0: 2}, tie="conv"),
        "layers/0/bias": ScaleGroup((0, 1, 2), {0: 2}, tie="conv"),
    },
    inputs=(106, 4, 3, 4, 4),
)
def group_norm():
    conv = nn.Conv2d(3, 6, 2, key=KEY)
    return conv, nn.GroupNorm(2, 6), LEAKY, POOL, head(6)


@classifier(
    "equinox_weight_norm",
    {"layers/0/layer/weight": ROWS, "layers/2/layer/weight": MATRIX},
)
def weight_norm():
    second = nn.WeightNorm(linear(6, 5, bias=True), axis=None)
    return nn.WeightNorm(linear(4, 6, bias=True)), LEAKY, second, LEAKY, head(5)


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


classifier("equinox_attention", inputs=(0, 5, 4, 4))(partial(Attention, False))


@classifier(
    "equinox_qk_norm",
    {
        "attention/query_proj/weight": ScaleGroup((0, 1), {0: 2}, tie="q"),
        "attention/query_proj/bias": ScaleGroup(0, {0: 2}, tie="q"),
        "attention/key_proj/weight": ScaleGroup((0, 1), {0: 2}),
    },
    inputs=(0, 5, 4, 4),
)
def qk_norm():
    """Flat kernels of shape (heads * dim, in)."""
    return Attention(True)


@classifier(
    "equinox_scan",
    tied({"layers/weight": (1, 2), "layers/bias": (1,)}),
    inputs=(0, 12, 5),
)
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


@classifier(
    "equinox_embedding", {"embedding/weight": ROWS}, inputs=partial(tokens, 6)
)
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


@classifier("equinox_mlp")
def mlp():
    """Nothing is normalized."""
    return nn.MLP(4, 3, 5, 2, activation=leaky, key=KEY)


@classifier("equinox_shared", {"layer/weight": MATRIX})
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


@classifier("equinox_shared_outside")
class SharedOutside(Shared):
    """The same layer once more, and no norm behind it."""

    def __call__(self, x):
        return super().__call__(x) + self.head(self.layer(x))
