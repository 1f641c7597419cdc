"""Networks in plain JAX: trees of arrays, functions of them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from psi_optax import ScaleGroup

from .registry import (
    INERT,
    PARTLY,
    cross_entropy,
    draw,
    given,
    images,
    inputs_of,
    labels,
    net,
    normal,
    pair,
    sentences,
    tied,
    tokens,
    vectors,
)

COLUMNS, MATRIX = ScaleGroup(0), ScaleGroup((0, 1))
FILTERS, HEADS = ScaleGroup((0, 1, 2)), ScaleGroup((0, 2))


def standardize(x, axes, epsilon=1e-5):
    centred = x - x.mean(axes, keepdims=True)
    variance = (centred**2).mean(axes, keepdims=True)
    return centred * lax.rsqrt(variance + epsilon)


def rms_norm(x, epsilon=1e-6):
    return x * lax.rsqrt((x**2).mean(-1, keepdims=True) + epsilon)


def unit(x, axes):
    return x / jnp.sqrt((x**2).sum(axes, keepdims=True))


def convolve(x, kernel, groups=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def with_head(features, inputs=vectors, **params):
    """Return the loss of a linear head on `features(params, x)`."""

    def loss(params, x, y):
        hidden = features(params, x)
        return cross_entropy(hidden @ params["head"], y)

    params, x = draw(**params), inputs_of(inputs)
    width = jax.eval_shape(features, params, x).shape[-1]
    params["head"] = 0.5 * normal(99, width, 3)
    return loss, params, (x, labels(len(x)))


classifier = partial(net, build=with_head)


@classifier(
    "plain_bn_mlp",
    {"a": COLUMNS, "c": COLUMNS, **pair("gain", "shift")},
    a=(4, 6),
    c=(6, 5),
    gain=np.ones(6),
    shift=np.zeros(6),
)
def bn_mlp(p, x):
    x = standardize(x @ p["a"], 0) * p["gain"][None] + p["shift"][None]
    return jax.nn.relu(standardize(jax.nn.relu(x) @ p["c"], 0))


@classifier("plain_mlp", a=(4, 6), c=(6, 5))
def mlp(p, x):
    """Layers can be scaled against one another only."""
    return jax.nn.relu(jax.nn.relu(x @ p["a"]) @ p["c"])


@classifier(
    "plain_weight_norm",
    {"a": COLUMNS, "c": MATRIX},
    a=(4, 6),
    bias=np.zeros(6),
    c=(6, 5),
)
def weight_norm(p, x):
    return jax.nn.relu(x @ unit(p["a"], 0) + p["bias"][None]) @ unit(
        p["c"], (0, 1)
    )


@classifier(
    "plain_weight_norm_gains",
    {"a": COLUMNS, "gain": ScaleGroup(())},
    a=(4, 6),
    gain=np.ones(6),
)
def weight_norm_gains(p, x):
    """In front of BatchNorm the gain of weight normalization is free."""
    return jax.nn.relu(standardize(x @ (unit(p["a"], 0) * p["gain"][None]), 0))


@classifier(
    "plain_weight_standardization",
    {"a": FILTERS},
    inputs=images,
    a=(3, 3, 3, 4),
)
def weight_standardization(p, x):
    kernel = standardize(p["a"], (0, 1, 2))
    return jax.nn.relu(convolve(x, kernel)).mean((1, 2))


@classifier("plain_spectral_norm", {"a": MATRIX}, a=(4, 6))
def spectral_norm(p, x):
    """The largest singular value, by power iteration in a loop."""
    start = jnp.ones(6, p["a"].dtype)
    right = lax.fori_loop(
        0, 4, lambda _, v: unit(p["a"].T @ (p["a"] @ v), 0), start
    )
    return jax.nn.relu(x @ (p["a"] / jnp.linalg.norm(p["a"] @ right)))


@classifier("plain_orthogonalized", {"a": COLUMNS}, a=(4, 3))
def orthogonalized(p, x):
    """Gram-Schmidt does not see how long the columns are."""
    return jax.nn.relu(x @ jnp.linalg.qr(p["a"])[0])


@classifier(
    "plain_other_norms", {"a": COLUMNS, "c": MATRIX}, a=(4, 6), c=(6, 5)
)
def other_norms(p, x):
    """Divided by the sum of magnitudes, and by the largest magnitude."""
    x = jax.nn.relu(x @ (p["a"] / jnp.abs(p["a"]).sum(0, keepdims=True)))
    return x @ (p["c"] / jnp.abs(p["c"]).max())


def with_penalty(penalty):
    """Return the loss of two normalized layers, plus a penalty."""

    def features(p, x):
        x = jax.nn.relu(standardize(x @ p["a"], 0))
        return jax.nn.relu(standardize(x @ p["c"], 0))

    loss, *rest = with_head(features, a=(4, 6), c=(6, 5))
    return lambda p, x, y: loss(p, x, y) + penalty(p["a"], x), *rest


penalized = partial(net, build=with_penalty)


@penalized("plain_weight_penalty", {"c": COLUMNS})
def weight_penalty(kernel, x):
    """The penalty sees the scale of one kernel."""
    return 1e-2 * (kernel**2).sum()


@penalized("plain_activity_penalty", {"c": COLUMNS})
def activity_penalty(kernel, x):
    """A kernel's output goes to BatchNorm, and to a penalty too."""
    return 0.1 * jnp.abs(x @ kernel).mean()


@penalized("plain_scale_free_penalty", {"a": COLUMNS, "c": COLUMNS})
def scale_free_penalty(kernel, x):
    """A penalty on the angles between filters sees no scale."""
    columns = unit(kernel, 0)
    return ((columns.T @ columns) ** 2).mean()


@classifier(
    "plain_unused",
    {"spare": INERT, "zero": INERT, "a": COLUMNS},
    a=(4, 6),
    spare=(3,),
    zero=(6,),
)
def unused(p, x):
    """One parameter is not read; another one is multiplied by zero."""
    return jax.nn.relu(standardize(x @ p["a"], 0) + 0.0 * p["zero"][None])


@classifier("plain_large_epsilon", a=0.5 * normal(0, 4, 6))
def large_epsilon(p, x):
    return jax.nn.relu(standardize(x @ p["a"], 0, 0.5))


@classifier("plain_clip", a=(4, 6))
def clip(p, x):
    return standardize(jnp.clip(x @ p["a"], -0.5, 0.5), 0)


@classifier(
    "plain_threshold", inputs=partial(vectors, 48), a=0.3 * normal(0, 4, 6)
)
def threshold(p, x):
    """Small numbers are dropped; nearly everywhere no slope tells of it."""
    x = x @ p["a"]
    return standardize(jnp.where(jnp.abs(x) > 0.3, x, 0), 0)


@classifier("plain_sign_threshold", {"a": COLUMNS}, a=(4, 6))
def sign_threshold(p, x):
    """At zero a threshold sees no scale."""
    x = x @ p["a"]
    return standardize(jnp.where(x > 0, x, 0.1 * x), 0)


@classifier("plain_tanh", a=(4, 6))
def tanh(p, x):
    return standardize(jnp.tanh(x @ p["a"]), 0)


@classifier("plain_stopped_statistics", {"a": COLUMNS}, a=(4, 6))
def stopped_statistics(p, x):
    """The value has no scale; the gradient that JAX gives is another's."""
    x = x @ p["a"]
    mean = lax.stop_gradient(x.mean(0, keepdims=True))
    deviation = lax.stop_gradient(x.std(0, keepdims=True))
    return jax.nn.relu((x - mean) / (deviation + 1e-5))


@classifier(
    "plain_custom_derivatives", {"a": COLUMNS, "c": COLUMNS}, a=(4, 6), c=(6, 5)
)
def custom_derivatives(p, x):
    @jax.custom_vjp
    def identity(x):
        return x

    identity.defvjp(lambda x: (x, None), lambda _, g: (0.5 * g,))

    @jax.custom_jvp
    def leaky(x):
        return jnp.maximum(x, 0.1 * x)

    leaky.defjvps(lambda t, _, x: jnp.where(x > 0, t, 0.1 * t))

    x = leaky(identity(x @ identity(p["a"])))
    x = jax.nn.relu(standardize(x, 0)) @ p["c"]
    return jax.nn.relu(standardize(jax.jit(identity)(x), 0))


@classifier("plain_remat", {"a": COLUMNS, "c": COLUMNS}, a=(4, 6), c=(6, 5))
def remat(p, x):
    @jax.checkpoint
    def layer(kernel, x):
        return jax.nn.relu(standardize(x @ kernel, 0))

    return layer(p["c"], layer(p["a"], x))


@classifier("plain_branches", {"a": COLUMNS, "c": COLUMNS}, a=(4, 6), c=(6, 5))
def branches(p, x):
    """One of two ways at run time, BatchNorm behind both."""
    x = lax.cond(
        x.sum() > 0, lambda y: jax.nn.relu(y), lambda y: -y, x @ p["a"]
    )
    x = lax.switch(
        len(x) % 3,
        [jnp.abs, jax.nn.relu, lambda y: y],
        standardize(x, 0) @ p["c"],
    )
    return standardize(x, 0)


@classifier("plain_bfloat16", {"a": COLUMNS, "c": COLUMNS}, a=(4, 6), c=(6, 5))
def bfloat16(p, x):
    """Products in bfloat16, statistics in what the weights are in."""
    for kernel in (p["a"], p["c"]):
        x = x.astype(jnp.bfloat16) @ kernel.astype(jnp.bfloat16)
        x = jax.nn.relu(standardize(x.astype(kernel.dtype), 0))
    return x


@classifier(
    "plain_masked_mean", {"a": COLUMNS}, inputs=(102, 5, 4, 4), a=(4, 6)
)
def masked_mean(p, x):
    """BatchNorm over the positions that a mask keeps, and a mean of them."""
    keep = (jnp.arange(4) < 3).astype(x.dtype)[None, :, None]
    x = x @ p["a"]
    count = keep.sum() * len(x)
    mean = (x * keep).sum((0, 1), keepdims=True) / count
    variance = ((x - mean) ** 2 * keep).sum((0, 1), keepdims=True) / count
    x = jax.nn.relu((x - mean) * lax.rsqrt(variance + 1e-5))
    return (x * keep).sum(1) / keep.sum()


@given(
    "plain_cosine_head",
    {"classes": COLUMNS, **tied(a=(0, 1), bias=(0,))},
    a=(4, 7),
    bias=np.full(7, 0.5),
    classes=(7, 3),
    temperature=4.0,
)
def cosine_head(p, x, y):
    """Both sides of the cosine are normalized; the temperature is not."""
    x = unit(jax.nn.relu(x @ p["a"] + p["bias"][None]) + 1e-9, -1)
    logits = p["temperature"] * (x @ unit(p["classes"], 0))
    return cross_entropy(logits, y)


@given(
    "plain_cosine_loss",
    {"a": MATRIX, "c": MATRIX},
    args=lambda: (vectors(), normal(103, 12, 3)),
    a=(4, 6),
    c=(6, 3),
)
def cosine_loss(p, x, y):
    """The loss itself sees directions only; no layer is normalized."""
    x = jax.nn.relu(x @ p["a"]) @ p["c"]
    return 1 - (x * y).sum() / jnp.sqrt((x**2).sum() * (y**2).sum())


@classifier("plain_homogeneous", {"a": MATRIX, "c": MATRIX}, a=(4, 6), c=(6, 5))
def homogeneous(p, x):
    """Two layers without bias in front of one norm."""
    return rms_norm(jax.nn.relu(x @ p["a"]) @ p["c"])


@classifier(
    "plain_swiglu",
    {"up": MATRIX, "down": MATRIX},
    gate=(4, 6),
    up=(4, 6),
    down=(6, 5),
)
def swiglu(p, x):
    """The gate has a scale, what it multiplies has none."""
    return rms_norm((jax.nn.silu(x @ p["gate"]) * (x @ p["up"])) @ p["down"])


@classifier(
    "plain_bilinear",
    {"a": COLUMNS, "c": COLUMNS, "gain": ScaleGroup(())},
    a=(4, 6),
    c=(4, 6),
    gain=1.0,
)
def bilinear(p, x):
    """A product of two layers, and a scalar gain, in front of BatchNorm."""
    return standardize(p["gain"] * (x @ p["a"]) * (x @ p["c"]), 0)


@classifier("plain_squared", {"a": COLUMNS}, a=(4, 6))
def squared(p, x):
    """The output grows with the square of the weights."""
    return standardize(jnp.abs(x) @ p["a"] ** 2, 0)


@classifier("plain_exponentials", a=(4, 6))
def exponentials(p, x):
    """Adding a number changes nothing, multiplying by one does."""
    return jnp.abs(x) @ jax.nn.softmax(p["a"], 0)


@classifier("plain_added_branches", pair("a", "c"), a=(2, 6), c=(2, 6))
def added_branches(p, x):
    """A sum in front of BatchNorm: the columns of both kernels together."""
    return jax.nn.relu(standardize(x[:, :2] @ p["a"] + x[:, 2:] @ p["c"], 0))


@classifier("plain_joined_branches", pair("a", "c", (0, 1)), a=(2, 3), c=(2, 4))
def joined_branches(p, x):
    """Two outputs side by side in front of one LayerNorm."""
    x = jnp.concatenate([x[:, :2] @ p["a"], x[:, 2:] @ p["c"]], -1)
    return jax.nn.relu(standardize(x, -1))


@classifier("plain_skip_over_kernel", a=(4, 4))
def skip_over_kernel(p, x):
    """What the kernel makes is added to what it is given, then normalized."""
    return jax.nn.relu(standardize(x + x @ p["a"], -1))


@classifier("plain_halves", {"a": ScaleGroup((0, 1), {0: 2})}, a=(4, 5))
def halves(p, x):
    """Each half of the inputs is projected and normalized by itself."""
    kernel = p["a"].reshape(2, 2, 5)
    x = jnp.einsum("bgi,gio->bgo", x.reshape(-1, 2, 2), kernel)
    return rms_norm(x).reshape(len(x), -1)


@classifier(
    "plain_low_rank",
    pair("a", "right"),
    (pair("a", "left", (0, 1)),),
    a=(4, 6),
    left=(4, 2),
    right=(2, 6),
)
def low_rank(p, x):
    """A kernel with a low-rank addition: two joint groups share the kernel."""
    return standardize(x @ p["a"] + x @ p["left"] @ p["right"], 0)


@classifier("plain_signs", {"a": ScaleGroup(())}, a=(4, 6))
def signs(p, x):
    """Binary weights; the gradient goes straight through."""
    binary = p["a"] + lax.stop_gradient(jnp.sign(p["a"]) - p["a"])
    return jax.nn.relu(x @ binary)


@classifier(
    "plain_hard_router",
    {"router": MATRIX},
    inputs=partial(vectors, 24),
    router=(4, 3),
    experts=(3, 4, 5),
)
def hard_router(p, x):
    """The largest logit chooses an expert; no gradient reaches the router."""
    chosen = jax.nn.one_hot((x @ p["router"]).argmax(-1), 3, dtype=x.dtype)
    return jnp.einsum("be,bi,eio->bo", chosen, x, p["experts"])


@classifier(
    "plain_experts",
    {"experts": ScaleGroup((1, 2))},
    router=(4, 3),
    experts=(3, 4, 5),
)
def experts(p, x):
    """Normalized expert weights, mixed by a softmax."""
    kernels = jax.vmap(lambda kernel: unit(kernel, (0, 1)))(p["experts"])
    out = jax.vmap(lambda kernel: jax.nn.relu(x @ kernel))(kernels)
    return jnp.einsum("be,ebo->bo", jax.nn.softmax(x @ p["router"]), out)


@classifier(
    "plain_grouped_conv",
    {"a": FILTERS, "c": FILTERS},
    inputs=images,
    a=(3, 3, 3, 4),
    c=(3, 3, 2, 6),
)
def grouped_conv(p, x):
    x = jax.nn.relu(standardize(convolve(x, p["a"]), (0, 1, 2)))
    x = standardize(convolve(x, p["c"], groups=2), (0, 1, 2))
    return jax.nn.relu(x).mean((1, 2))


@classifier(
    "plain_scan",
    {"stack": ScaleGroup(1), "first": COLUMNS},
    first=(4, 5),
    stack=(3, 5, 5),
)
def scan(p, x):
    """BatchNorm behind every layer of a stack."""

    def layer(x, kernel):
        return jax.nn.relu(standardize(x @ kernel, 0)), None

    x = jax.nn.relu(standardize(x @ p["first"], 0))
    return lax.scan(layer, x, p["stack"])[0]


@classifier(
    "plain_scan_prenorm",
    tied(first=(0, 1), down=(0, 1, 2)),
    first=(4, 5),
    up=(2, 5, 6),
    down=(2, 6, 5),
)
def scan_prenorm(p, x):
    """A residual stream: all that write into it have one scale."""

    def layer(x, kernels):
        up, down = kernels
        return x + jax.nn.gelu(rms_norm(x) @ up) @ down, None

    x = lax.scan(layer, x @ p["first"], (p["up"], p["down"]))[0]
    return rms_norm(x)


@classifier(
    "plain_lstm",
    dict.fromkeys(("input", "hidden"), ScaleGroup((0, 1), {1: 4})),
    inputs=(104, 5, 4, 4),
    input=(4, 12),
    hidden=2.0 * normal(1, 3, 12),
    bias=normal(2, 4, 3),
)
def lstm(p, x):
    """LayerNorm within each gate, of the input's part and the state's."""

    def gates(x):
        return standardize(x.reshape(len(x), 4, 3), -1, 1e-12)

    def step(carry, x):
        h, c = carry
        total = gates(x @ p["input"]) + gates(h @ p["hidden"])
        total = total + p["bias"][None]
        i, f, o, new = (total[:, k] for k in range(4))
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(new)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

    x = x.swapaxes(0, 1)
    start = jnp.asarray([[0.7, -0.7, 0.3]], x.dtype)
    start = jnp.tile(start, (x.shape[1], 1))
    return lax.scan(step, (start, start), x)[0][0]


def attend(q, k, v):
    """Over (batch, time, heads, dim)."""
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k))
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v).mean(1)


def with_attention(features, **params):
    def flat(p, x):
        return features(p, x).reshape(len(x), -1)

    return with_head(flat, (105, 5, 4, 4), **params)


attention = partial(net, build=with_attention)


@attention("plain_attention", q=(4, 2, 3), k=(4, 2, 3), v=(4, 2, 3))
def plain_attention(p, x):
    return attend(*(jnp.einsum("bti,ihd->bthd", x, p[n]) for n in "qkv"))


@attention(
    "plain_qk_norm",
    {"q": HEADS, "k": HEADS},
    q=(4, 2, 3),
    k=(4, 2, 3),
    v=(4, 2, 3),
    gain=1.0,
)
def qk_norm(p, x):
    q, k, v = (jnp.einsum("bti,ihd->bthd", x, p[n]) for n in "qkv")
    return attend(rms_norm(q), rms_norm(k) * p["gain"], v)


@attention("plain_fused_qkv", {"qkv": PARTLY}, qkv=(4, 3, 2, 3))
def fused_qkv(p, x):
    qkv = jnp.einsum("bti,ichd->btchd", x, p["qkv"])
    q, k, v = (qkv[:, :, i] for i in range(3))
    return attend(rms_norm(q), rms_norm(k), v)


@given(
    "plain_tied_embedding",
    {"a": MATRIX},
    args=sentences,
    table=(7, 5),
    a=(5, 5),
)
def tied_embedding(p, x, y):
    """One table for the words that go in and the logits that come out."""
    hidden = rms_norm(jax.nn.relu(rms_norm(p["table"][x]) @ p["a"]))
    return cross_entropy(hidden @ p["table"].T, y)


@classifier(
    "plain_embedding",
    {"table": ScaleGroup(1), "a": MATRIX},
    inputs=partial(tokens, 12),
    table=(7, 5),
    a=(5, 5),
)
def embedding(p, x):
    """Every token's row is normalized as soon as it is read."""
    return rms_norm(jax.nn.leaky_relu(rms_norm(p["table"][x]).mean(1) @ p["a"]))
