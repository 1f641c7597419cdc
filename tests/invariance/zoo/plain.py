"""Networks in plain JAX: trees of arrays, functions of them."""

import jax
import jax.numpy as jnp
from jax import lax

from psi_optax import ScaleGroup

from .registry import (
    INERT,
    PARTLY,
    cross_entropy,
    images,
    labels,
    net,
    normal,
    pair,
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


def classify(features, **params):
    """A linear head on `features(params, x)`, from vectors of length 4."""
    return with_head(features, vectors(), **params)


def with_head(features, x, **params):
    def loss(params, x, y):
        hidden = features(params, x)
        return cross_entropy(hidden @ params["head"], y)

    width = jax.eval_shape(features, params, x).shape[-1]
    params["head"] = 0.5 * normal(99, width, 3)
    return loss, params, (x, labels(len(x)))


@net("plain_bn_mlp", {"a": COLUMNS, "c": COLUMNS, **pair("gain", "shift")})
def bn_mlp():
    def features(p, x):
        x = standardize(x @ p["a"], 0) * p["gain"][None] + p["shift"][None]
        return jax.nn.relu(standardize(jax.nn.relu(x) @ p["c"], 0))

    return classify(
        features,
        a=normal(0, 4, 6),
        c=normal(1, 6, 5),
        gain=jnp.ones(6),
        shift=jnp.zeros(6),
    )


@net("plain_mlp")
def mlp():
    """Layers can be scaled against one another only."""
    return classify(
        lambda p, x: jax.nn.relu(jax.nn.relu(x @ p["a"]) @ p["c"]),
        a=normal(0, 4, 6),
        c=normal(1, 6, 5),
    )


@net("plain_weight_norm", {"a": COLUMNS, "c": MATRIX})
def weight_norm():
    return classify(
        lambda p, x: (
            jax.nn.relu(x @ unit(p["a"], 0) + p["bias"][None])
            @ unit(p["c"], (0, 1))
        ),
        a=normal(0, 4, 6),
        bias=jnp.zeros(6),
        c=normal(1, 6, 5),
    )


@net("plain_weight_norm_gains", {"a": COLUMNS, "gain": ScaleGroup(())})
def weight_norm_gains():
    """In front of BatchNorm the gain of weight normalization is free."""
    return classify(
        lambda p, x: jax.nn.relu(
            standardize(x @ (unit(p["a"], 0) * p["gain"][None]), 0)
        ),
        a=normal(0, 4, 6),
        gain=jnp.ones(6),
    )


@net("plain_weight_standardization", {"a": FILTERS})
def weight_standardization():
    def features(p, x):
        kernel = standardize(p["a"], (0, 1, 2))
        return jax.nn.relu(convolve(x, kernel)).mean((1, 2))

    return with_head(features, images(), a=normal(0, 3, 3, 3, 4))


@net("plain_spectral_norm", {"a": MATRIX})
def spectral_norm():
    """The largest singular value, by power iteration in a loop."""

    def features(p, x):
        start = jnp.ones(6, p["a"].dtype)
        right = lax.fori_loop(
            0, 4, lambda _, v: unit(p["a"].T @ (p["a"] @ v), 0), start
        )
        return jax.nn.relu(x @ (p["a"] / jnp.linalg.norm(p["a"] @ right)))

    return classify(features, a=normal(0, 4, 6))


@net("plain_orthogonalized", {"a": COLUMNS})
def orthogonalized():
    """Gram-Schmidt does not see how long the columns are."""
    return classify(
        lambda p, x: jax.nn.relu(x @ jnp.linalg.qr(p["a"])[0]),
        a=normal(0, 4, 3),
    )


@net("plain_other_norms", {"a": COLUMNS, "c": MATRIX})
def other_norms():
    """Divided by the sum of magnitudes, and by the largest magnitude."""

    def features(p, x):
        x = jax.nn.relu(x @ (p["a"] / jnp.abs(p["a"]).sum(0, keepdims=True)))
        return x @ (p["c"] / jnp.abs(p["c"]).max())

    return classify(features, a=normal(0, 4, 6), c=normal(1, 6, 5))


@net("plain_weight_penalty", {"c": COLUMNS})
def weight_penalty():
    """The penalty sees the scale of one kernel."""
    loss, params, args = bn_mlp_of_two()
    return (
        lambda p, *rest: loss(p, *rest) + 1e-2 * (p["a"] ** 2).sum(),
        params,
        args,
    )


@net("plain_activity_penalty", {"c": COLUMNS})
def activity_penalty():
    """A kernel's output goes to BatchNorm, and to a penalty too."""
    loss, params, args = bn_mlp_of_two()
    return (
        lambda p, x, y: loss(p, x, y) + 0.1 * jnp.abs(x @ p["a"]).mean(),
        params,
        args,
    )


@net("plain_scale_free_penalty", {"a": COLUMNS, "c": COLUMNS})
def scale_free_penalty():
    """A penalty on the angles between filters sees no scale."""
    loss, params, args = bn_mlp_of_two()

    def penalty(kernel):
        columns = unit(kernel, 0)
        return ((columns.T @ columns) ** 2).mean()

    return lambda p, *rest: loss(p, *rest) + penalty(p["a"]), params, args


def bn_mlp_of_two():
    def features(p, x):
        x = jax.nn.relu(standardize(x @ p["a"], 0))
        return jax.nn.relu(standardize(x @ p["c"], 0))

    return classify(features, a=normal(0, 4, 6), c=normal(1, 6, 5))


@net("plain_unused", {"spare": INERT, "zero": INERT, "a": COLUMNS})
def unused():
    """Nobody reads one parameter; another one is multiplied by zero."""
    return classify(
        lambda p, x: jax.nn.relu(
            standardize(x @ p["a"], 0) + 0.0 * p["zero"][None]
        ),
        a=normal(0, 4, 6),
        spare=normal(1, 3),
        zero=normal(2, 6),
    )


@net("plain_large_epsilon")
def large_epsilon():
    return classify(
        lambda p, x: jax.nn.relu(standardize(x @ p["a"], 0, 0.5)),
        a=0.5 * normal(0, 4, 6),
    )


@net("plain_clip")
def clip():
    return classify(
        lambda p, x: standardize(jnp.clip(x @ p["a"], -0.5, 0.5), 0),
        a=normal(0, 4, 6),
    )


@net("plain_threshold")
def threshold():
    """Small numbers are dropped; nearly everywhere no slope tells of it."""

    def features(p, x):
        x = x @ p["a"]
        return standardize(jnp.where(jnp.abs(x) > 0.3, x, 0), 0)

    return with_head(features, vectors(48), a=0.3 * normal(0, 4, 6))


@net("plain_sign_threshold", {"a": COLUMNS})
def sign_threshold():
    """At zero a threshold sees no scale."""

    def features(p, x):
        x = x @ p["a"]
        return standardize(jnp.where(x > 0, x, 0.1 * x), 0)

    return classify(features, a=normal(0, 4, 6))


@net("plain_tanh")
def tanh():
    return classify(
        lambda p, x: standardize(jnp.tanh(x @ p["a"]), 0), a=normal(0, 4, 6)
    )


@net("plain_stopped_statistics", {"a": COLUMNS})
def stopped_statistics():
    """The value has no scale; the gradient that JAX gives is another's."""

    def features(p, x):
        x = x @ p["a"]
        mean = lax.stop_gradient(x.mean(0, keepdims=True))
        deviation = lax.stop_gradient(x.std(0, keepdims=True))
        return jax.nn.relu((x - mean) / (deviation + 1e-5))

    return classify(features, a=normal(0, 4, 6))


@net("plain_custom_derivatives", {"a": COLUMNS, "c": COLUMNS})
def custom_derivatives():
    @jax.custom_vjp
    def identity(x):
        return x

    identity.defvjp(lambda x: (x, None), lambda _, g: (0.5 * g,))

    @jax.custom_jvp
    def leaky(x):
        return jnp.maximum(x, 0.1 * x)

    leaky.defjvps(lambda t, _, x: jnp.where(x > 0, t, 0.1 * t))

    def features(p, x):
        x = leaky(identity(x @ identity(p["a"])))
        x = jax.nn.relu(standardize(x, 0)) @ p["c"]
        return jax.nn.relu(standardize(jax.jit(identity)(x), 0))

    return classify(features, a=normal(0, 4, 6), c=normal(1, 6, 5))


@net("plain_remat", {"a": COLUMNS, "c": COLUMNS})
def remat():
    @jax.checkpoint
    def layer(kernel, x):
        return jax.nn.relu(standardize(x @ kernel, 0))

    return classify(
        lambda p, x: layer(p["c"], layer(p["a"], x)),
        a=normal(0, 4, 6),
        c=normal(1, 6, 5),
    )


@net("plain_branches", {"a": COLUMNS, "c": COLUMNS})
def branches():
    """One of two ways at run time, BatchNorm behind both."""

    def features(p, x):
        x = lax.cond(
            x.sum() > 0, lambda y: jax.nn.relu(y), lambda y: -y, x @ p["a"]
        )
        x = lax.switch(
            len(x) % 3,
            [jnp.abs, jax.nn.relu, lambda y: y],
            standardize(x, 0) @ p["c"],
        )
        return standardize(x, 0)

    return classify(features, a=normal(0, 4, 6), c=normal(1, 6, 5))


@net("plain_bfloat16", {"a": COLUMNS, "c": COLUMNS})
def bfloat16():
    """Products in bfloat16, statistics in what the weights are in."""

    def features(p, x):
        for kernel in (p["a"], p["c"]):
            x = x.astype(jnp.bfloat16) @ kernel.astype(jnp.bfloat16)
            x = jax.nn.relu(standardize(x.astype(kernel.dtype), 0))
        return x

    return classify(features, a=normal(0, 4, 6), c=normal(1, 6, 5))


@net("plain_masked_mean", {"a": COLUMNS})
def masked_mean():
    """BatchNorm over the positions that a mask keeps, and a mean of them."""

    def features(p, x):
        keep = (jnp.arange(4) < 3).astype(x.dtype)[None, :, None]
        x = x @ p["a"]
        count = keep.sum() * len(x)
        mean = (x * keep).sum((0, 1), keepdims=True) / count
        variance = ((x - mean) ** 2 * keep).sum((0, 1), keepdims=True) / count
        x = jax.nn.relu((x - mean) * lax.rsqrt(variance + 1e-5))
        return (x * keep).sum(1) / keep.sum()

    return with_head(features, normal(102, 5, 4, 4), a=normal(0, 4, 6))


@net(
    "plain_cosine_head",
    {"classes": COLUMNS, **pair("a", "bias", (0,))}
    | {"a": ScaleGroup((0, 1), tie="a")},
)
def cosine_head():
    """Both sides of the cosine are normalized; the temperature is not."""

    def loss(p, x, y):
        x = unit(jax.nn.relu(x @ p["a"] + p["bias"][None]) + 1e-9, -1)
        logits = p["temperature"] * (x @ unit(p["classes"], 0))
        return cross_entropy(logits, y)

    params = {
        "a": normal(0, 4, 7),
        "bias": jnp.full(7, 0.5),
        "classes": normal(1, 7, 3),
        "temperature": jnp.asarray(4.0),
    }
    return loss, params, (vectors(), labels(12))


@net("plain_cosine_loss", {"a": MATRIX, "c": MATRIX})
def cosine_loss():
    """The loss itself sees directions only; no layer is normalized."""

    def loss(p, x, y):
        x = jax.nn.relu(x @ p["a"]) @ p["c"]
        return 1 - (x * y).sum() / jnp.sqrt((x**2).sum() * (y**2).sum())

    params = {"a": normal(0, 4, 6), "c": normal(1, 6, 3)}
    return loss, params, (vectors(), normal(103, 12, 3))


@net("plain_homogeneous", {"a": MATRIX, "c": MATRIX})
def homogeneous():
    """Two layers without bias in front of one norm."""
    return classify(
        lambda p, x: rms_norm(jax.nn.relu(x @ p["a"]) @ p["c"]),
        a=normal(0, 4, 6),
        c=normal(1, 6, 5),
    )


@net("plain_swiglu", {"up": MATRIX, "down": MATRIX})
def swiglu():
    """The gate has a scale, what it multiplies has none."""
    return classify(
        lambda p, x: rms_norm(
            (jax.nn.silu(x @ p["gate"]) * (x @ p["up"])) @ p["down"]
        ),
        gate=normal(0, 4, 6),
        up=normal(1, 4, 6),
        down=normal(2, 6, 5),
    )


@net("plain_bilinear", {"a": COLUMNS, "c": COLUMNS, "gain": ScaleGroup(())})
def bilinear():
    """A product of two layers, and a scalar gain, in front of BatchNorm."""
    return classify(
        lambda p, x: standardize(p["gain"] * (x @ p["a"]) * (x @ p["c"]), 0),
        a=normal(0, 4, 6),
        c=normal(1, 4, 6),
        gain=jnp.asarray(1.0),
    )


@net("plain_squared", {"a": COLUMNS})
def squared():
    """The output grows with the square of the weights."""
    return classify(
        lambda p, x: standardize(jnp.abs(x) @ p["a"] ** 2, 0),
        a=normal(0, 4, 6),
    )


@net("plain_exponentials")
def exponentials():
    """Adding a number changes nothing, multiplying by one does."""
    return classify(
        lambda p, x: jnp.abs(x) @ jax.nn.softmax(p["a"], 0),
        a=normal(0, 4, 6),
    )


@net("plain_added_branches", pair("a", "c"))
def added_branches():
    """A sum in front of BatchNorm: the columns of both kernels together."""
    return classify(
        lambda p, x: jax.nn.relu(
            standardize(x[:, :2] @ p["a"] + x[:, 2:] @ p["c"], 0)
        ),
        a=normal(0, 2, 6),
        c=normal(1, 2, 6),
    )


@net("plain_joined_branches", pair("a", "c", (0, 1)))
def joined_branches():
    """Two outputs side by side in front of one LayerNorm."""

    def features(p, x):
        x = jnp.concatenate([x[:, :2] @ p["a"], x[:, 2:] @ p["c"]], -1)
        return jax.nn.relu(standardize(x, -1))

    return classify(features, a=normal(0, 2, 3), c=normal(1, 2, 4))


@net("plain_skip_over_kernel")
def skip_over_kernel():
    """What the kernel makes is added to what it is given, then normalized."""
    return classify(
        lambda p, x: jax.nn.relu(standardize(x + x @ p["a"], -1)),
        a=normal(0, 4, 4),
    )


@net("plain_halves", {"a": ScaleGroup((0, 1), {0: 2})})
def halves():
    """Each half of the inputs is projected and normalized by itself."""

    def features(p, x):
        kernel = p["a"].reshape(2, 2, 5)
        x = jnp.einsum("bgi,gio->bgo", x.reshape(-1, 2, 2), kernel)
        return rms_norm(x).reshape(len(x), -1)

    return classify(features, a=normal(0, 4, 5))


@net(
    "plain_low_rank",
    {
        "a": ScaleGroup(0, tie="columns"),
        "right": ScaleGroup(0, tie="columns"),
    },
    (
        {
            "a": ScaleGroup((0, 1), tie="all"),
            "left": ScaleGroup((0, 1), tie="all"),
        },
    ),
)
def low_rank():
    """A kernel with a low-rank addition: two joint groups share the kernel."""
    return classify(
        lambda p, x: standardize(x @ p["a"] + x @ p["left"] @ p["right"], 0),
        a=normal(0, 4, 6),
        left=normal(1, 4, 2),
        right=normal(2, 2, 6),
    )


@net("plain_signs", {"a": ScaleGroup(())})
def signs():
    """Binary weights; the gradient goes straight through."""

    def features(p, x):
        binary = p["a"] + lax.stop_gradient(jnp.sign(p["a"]) - p["a"])
        return jax.nn.relu(x @ binary)

    return classify(features, a=normal(0, 4, 6))


@net("plain_hard_router", {"router": MATRIX})
def hard_router():
    """The largest logit chooses an expert; no gradient reaches the router."""

    def features(p, x):
        chosen = jax.nn.one_hot((x @ p["router"]).argmax(-1), 3, dtype=x.dtype)
        return jnp.einsum("be,bi,eio->bo", chosen, x, p["experts"])

    return with_head(
        features,
        vectors(24),
        router=normal(0, 4, 3),
        experts=normal(1, 3, 4, 5),
    )


@net("plain_experts", {"experts": ScaleGroup((1, 2))})
def experts():
    """Normalized expert weights, mixed by a softmax."""

    def features(p, x):
        kernels = jax.vmap(lambda kernel: unit(kernel, (0, 1)))(p["experts"])
        out = jax.vmap(lambda kernel: jax.nn.relu(x @ kernel))(kernels)
        return jnp.einsum("be,ebo->bo", jax.nn.softmax(x @ p["router"]), out)

    return classify(
        features, router=normal(0, 4, 3), experts=normal(1, 3, 4, 5)
    )


@net("plain_grouped_conv", {"a": FILTERS, "c": FILTERS})
def grouped_conv():
    def features(p, x):
        x = jax.nn.relu(standardize(convolve(x, p["a"]), (0, 1, 2)))
        x = standardize(convolve(x, p["c"], groups=2), (0, 1, 2))
        return jax.nn.relu(x).mean((1, 2))

    return with_head(
        features, images(), a=normal(0, 3, 3, 3, 4), c=normal(1, 3, 3, 2, 6)
    )


@net("plain_scan", {"stack": ScaleGroup(1), "first": COLUMNS})
def scan():
    """BatchNorm behind every layer of a stack."""

    def features(p, x):
        def layer(x, kernel):
            return jax.nn.relu(standardize(x @ kernel, 0)), None

        x = jax.nn.relu(standardize(x @ p["first"], 0))
        return lax.scan(layer, x, p["stack"])[0]

    return classify(features, first=normal(0, 4, 5), stack=normal(1, 3, 5, 5))


@net(
    "plain_scan_prenorm",
    {
        "first": ScaleGroup((0, 1), tie="stream"),
        "down": ScaleGroup((0, 1, 2), tie="stream"),
    },
)
def scan_prenorm():
    """A residual stream: all that write into it have one scale."""

    def features(p, x):
        def layer(x, kernels):
            up, down = kernels
            return x + jax.nn.gelu(rms_norm(x) @ up) @ down, None

        x = lax.scan(layer, x @ p["first"], (p["up"], p["down"]))[0]
        return rms_norm(x)

    return classify(
        features,
        first=normal(0, 4, 5),
        up=normal(1, 2, 5, 6),
        down=normal(2, 2, 6, 5),
    )


@net(
    "plain_lstm",
    {
        "input": ScaleGroup((0, 1), {1: 4}),
        "hidden": ScaleGroup((0, 1), {1: 4}),
    },
)
def lstm():
    """LayerNorm within each gate, of the input's part and the state's."""

    def gates(x):
        return standardize(x.reshape(len(x), 4, 3), -1, 1e-12)

    def features(p, x):
        def step(carry, x):
            h, c = carry
            total = gates(x @ p["input"]) + gates(h @ p["hidden"])
            total = total + p["bias"][None]
            i, f, o, new = (total[:, k] for k in range(4))
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(new)
            return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

        start = jnp.asarray([[0.7, -0.7, 0.3]], x.dtype)
        start = jnp.tile(start, (x.shape[1], 1))
        return lax.scan(step, (start, start), x)[0][0]

    def over_time(p, x):
        return features(p, x.swapaxes(0, 1))

    return with_head(
        over_time,
        normal(104, 5, 4, 4),
        input=normal(0, 4, 12),
        hidden=2.0 * normal(1, 3, 12),
        bias=normal(2, 4, 3),
    )


def attend(q, k, v):
    """Over (batch, time, heads, dim)."""
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k))
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v).mean(1)


def attention(features, **params):
    return with_head(
        lambda p, x: features(p, x).reshape(len(x), -1),
        normal(105, 5, 4, 4),
        **params,
    )


@net("plain_attention")
def plain_attention():
    def features(p, x):
        return attend(*(jnp.einsum("bti,ihd->bthd", x, p[n]) for n in "qkv"))

    return attention(
        features,
        q=normal(0, 4, 2, 3),
        k=normal(1, 4, 2, 3),
        v=normal(2, 4, 2, 3),
    )


@net("plain_qk_norm", {"q": HEADS, "k": HEADS})
def qk_norm():
    def features(p, x):
        q, k, v = (jnp.einsum("bti,ihd->bthd", x, p[n]) for n in "qkv")
        return attend(rms_norm(q), rms_norm(k) * p["gain"], v)

    return attention(
        features,
        q=normal(0, 4, 2, 3),
        k=normal(1, 4, 2, 3),
        v=normal(2, 4, 2, 3),
        gain=jnp.asarray(1.0),
    )


@net("plain_fused_qkv", {"qkv": PARTLY})
def fused_qkv():
    def features(p, x):
        qkv = jnp.einsum("bti,ichd->btchd", x, p["qkv"])
        q, k, v = (qkv[:, :, i] for i in range(3))
        return attend(rms_norm(q), rms_norm(k), v)

    return attention(features, qkv=normal(0, 4, 3, 2, 3))


@net("plain_tied_embedding", {"a": MATRIX})
def tied_embedding():
    """One table for the words that go in and the logits that come out."""

    def loss(p, x, y):
        hidden = rms_norm(jax.nn.relu(rms_norm(p["table"][x]) @ p["a"]))
        return cross_entropy(hidden @ p["table"].T, y)

    x = tokens()
    params = {"table": normal(0, 7, 5), "a": normal(1, 5, 5)}
    return loss, params, (x, (x * 3 + 1) % 7)


@net("plain_embedding", {"table": ScaleGroup(1), "a": MATRIX})
def embedding():
    """Every token's row is normalized as soon as it is read."""
    return with_head(
        lambda p, x: rms_norm(
            jax.nn.leaky_relu(rms_norm(p["table"][x]).mean(1) @ p["a"])
        ),
        tokens(12),
        table=normal(0, 7, 5),
        a=normal(1, 5, 5),
    )
