# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Finding scale groups in your own model
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/psi-optax/psi_optax/blob/main/notebooks/02_finding_scale_groups.ipynb)
#
# A *scale group* is a set of weights that can be multiplied by one positive
# number without any change of the loss. Here a network with four kinds of
# normalization is asked which of its weights have scale groups; we look at the
# answer, read why the others have none, and state groups by hand. CPU, GPU or
# TPU: nothing needs to be edited.

# %%
# Installs missing packages. JAX keeps its version: replacing it in a running
# GPU or TPU runtime requires a restart.
import importlib.metadata
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("psi_optax") is None:
    source = "git+https://github.com/psi-optax/psi_optax"
    packages = [f"psi_optax[benchmarks] @ {source}"]
    if importlib.util.find_spec("jax") is not None:
        packages.append(f"jax=={importlib.metadata.version('jax')}")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", *packages], check=True
    )

import jax

print(
    f"Python {sys.version.split()[0]}, JAX {jax.__version__}, {jax.devices()}"
)

# %%
import os

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

import psi_optax
from psi_optax import ScaleGroup
from psi_optax.models import architectures, linen

# The tests run this notebook without the measurement, and with a smaller
# network in the end.
SMOKE = bool(os.environ.get("PSI_OPTAX_SMOKE"))
jax.config.update("jax_disable_most_optimizations", SMOKE)

# %% [markdown]
# ## A network with four normalizations
#
# BatchNorm behind the first convolution, GroupNorm behind the second, attention
# with normalized queries and keys, LayerNorm behind a dense layer. All layers
# are Flax's, with the biases that they have by default.


# %%
class Network(nnx.Module):
    def __init__(self, rngs):
        kernel = (3, 3)
        self.conv_1 = nnx.Conv(1, 16, kernel, strides=2, rngs=rngs)
        self.norm_1 = nnx.BatchNorm(16, rngs=rngs)
        self.conv_2 = nnx.Conv(16, 16, kernel, rngs=rngs)
        self.norm_2 = nnx.GroupNorm(16, num_groups=4, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            num_heads=2,
            in_features=16,
            normalize_qk=True,
            decode=False,
            rngs=rngs,
        )
        self.dense = nnx.Linear(16, 32, rngs=rngs)
        self.norm_3 = nnx.LayerNorm(32, rngs=rngs)
        self.head = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm_1(self.conv_1(x)))
        x = nnx.relu(self.norm_2(self.conv_2(x)))
        x = x.reshape(len(x), -1, 16)
        x = x + self.attention(x)
        x = nnx.relu(self.norm_3(self.dense(x.mean(1))))
        return self.head(x)


def draw(params):
    """Random weights; biases too, which have no scale while they are zero."""
    random = np.random.default_rng(0)

    def fill(x):
        size = 2 / np.sqrt(np.prod(x.shape[:-1]))
        return jnp.asarray(size * random.normal(size=x.shape), x.dtype)

    return jax.tree.map(fill, params)


def loss_and_params(model):
    """What find_groups asks for: loss(params, images, labels), and params."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    rest = jax.tree.map(jnp.ones_like, rest)

    def loss(params, images, labels):
        logits = nnx.merge(graph, params, rest, copy=True)(images)
        return optax.softmax_cross_entropy_with_integer_labels(
            logits, labels
        ).mean()

    return loss, draw(params)


model = nnx.eval_shape(lambda: Network(nnx.Rngs(0)))
loss, params = loss_and_params(model)
digits = load_digits()
images = jnp.asarray(digits.images[:32, ..., None] / 16, jnp.float32)
batch = images, jnp.asarray(digits.target[:32], jnp.int32)

# %% [markdown]
# ## Ask
#
# `find_groups` follows the program of the training loss and proves what it can;
# then it measures, in double precision, on the batch, of which a few examples
# are enough.

# %%
report = psi_optax.find_groups(
    loss, params, *batch, method="analysis" if SMOKE else "both"
)
print(report)

# %% [markdown]
# *axes* are those along which a group lies, those that its norm is summed over.
#
# - `conv_1` feeds a BatchNorm: each of its 16 filters is a group. The bias is
#   subtracted again, so no gradient reaches it: *inert*. Leave it away.
# - `conv_2` feeds a GroupNorm, which normalizes blocks of channels: `3:4` is
#   axis 3 cut into 4 blocks. Its bias is added before the norm and has to be
#   multiplied together with the kernel: both have the same *tie*.
# - Queries and keys are normalized head by head, so each head of their kernels
#   is a group, tied to the same head of the bias.
# - `dense` feeds a LayerNorm: the kernel and its bias are one group.
# - The others have none, and *notes* say why. "Its scale cancels only
#   against" is one up and the other down, which is no group.

# %%
for name in ("conv_1/bias", "dense/kernel", "attention/value/kernel"):
    found = report[name]
    print(f"{name}: {found.kind}; {found.group or found.reason}")

# %% [markdown]
# ## Look
#
# The loss, when parameters are multiplied by a factor, over the loss when they
# are not. *Left:* those with scale groups, tied ones together. Nothing happens,
# until they are so small that the epsilon of a norm counts. *Middle:* kernels
# without the bias that they are tied to. *Right:* ordinary parameters, some of
# which leave the picture.

# %%
flat = nnx.to_flat_state(params)
names = ["/".join(path) for path in flat.paths]


@jax.jit
@jax.vmap
def losses_at(factors):
    """The losses, when each parameter is multiplied by its factor."""
    scaled = [
        (path, variable.replace(factor * variable[...]))
        for (path, variable), factor in zip(flat, factors, strict=True)
    ]
    return loss(nnx.from_flat_state(scaled), *batch)


# Powers of two, of which the rounding of floating-point numbers knows nothing.
factors = 2.0 ** np.arange(-12, 7)


ties = {}
for name in names:
    if (group := report[name].group) is not None:
        ties[group.tie or name] = (*ties.get(group.tie or name, ()), name)
panels = {
    "scale groups, ties together": list(ties.values()),
    "one of a tie alone": [
        (name,)
        for line in ties.values()
        for name in line
        if len(line) > 1 and "kernel" in name
    ],
    "ordinary parameters": [
        (name,) for name in names if report[name].kind == "ordinary"
    ],
}
lines = [line for lines in panels.values() for line in lines]
chosen = np.array([[[name in line for name in names]] for line in lines])
each = np.where(chosen, factors[:, None], 1.0).astype(np.float32)
losses = losses_at(each.reshape(-1, len(names))).reshape(len(lines), -1)
changes = dict(zip(lines, losses / losses[:, factors == 1], strict=True))

figure, axes = plt.subplots(1, 3, figsize=(13, 5), sharey=True)
for panel, (title, lines) in zip(axes, panels.items(), strict=True):
    for index, line in enumerate(lines):
        style = "-" if index < 10 else "--"
        panel.plot(factors, changes[line], style, label=" + ".join(line))
    panel.set_xscale("log", base=2)
    panel.set(title=title, xlabel="factor", ylim=(0.75, 1.25))
    panel.legend(
        fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2
    )
axes[0].set_ylabel("loss / loss at factor 1")
figure.tight_layout()

# %% [markdown]
# The same as numbers: how far the lines of each panel get from 1, for factors
# above 1.


# %%
furthest = {
    title: [float(np.abs(changes[x][factors > 1] - 1).max()) for x in lines]
    for title, lines in panels.items()
}
for title, found in furthest.items():
    print(f"{title}: {min(found):.1e} to {max(found):.1e}")
assert max(furthest["scale groups, ties together"]) < 1e-5
assert min(furthest["one of a tie alone"]) > 1e-4
assert min(furthest["ordinary parameters"]) > 1e-4

# %% [markdown]
# ## Fewer groups
#
# A report is accepted wherever groups are: `psi(optax.adam(1e-2), report)`.
# `select` leaves the others ordinary. What is tied stays together.

# %%
convolutions = report.select(r"conv_\d/.*")
print([path for path, f in convolutions.findings.items() if f.group])

# %% [markdown]
# ## By hand
#
# The same groups, where you know the network: patterns of paths. What no
# pattern matches is ordinary. In front of a BatchNorm alone
# `output_channels(params, where="conv_1/kernel")` is enough.

# %%
by_hand = psi_optax.groups_from_paths(
    {
        "conv_1/kernel": ScaleGroup((0, 1, 2)),
        "conv_2/kernel": ScaleGroup((0, 1, 2, 3), blocks={3: 4}, tie="conv_2"),
        "conv_2/bias": ScaleGroup(0, blocks={0: 4}, tie="conv_2"),
        r"attention/(query|key)/kernel": ScaleGroup((0, 2), tie=r"\1"),
        r"attention/(query|key)/bias": ScaleGroup(1, tie=r"\1"),
        "dense/kernel": ScaleGroup((0, 1), tie="dense"),
        "dense/bias": ScaleGroup(0, tie="dense"),
    }
)
print(psi_optax.describe_groups(params, by_hand))

norms = [psi_optax.group_norms(params, g) for g in (by_hand, report)]
assert jax.tree.all(jax.tree.map(np.array_equal, *norms))

# %% [markdown]
# `check_groups` measures whether what you say is so. The head looks like any
# other layer, and the kernel of `dense` has no scale without its bias:

# %%
wrong = psi_optax.groups_from_paths(
    {
        "conv_1/kernel": ScaleGroup((0, 1, 2)),
        "dense/kernel": ScaleGroup((0, 1)),
        "head/kernel": ScaleGroup(0),
    }
)
refused = None
try:
    psi_optax.check_groups(loss, params, wrong, *batch)
except ValueError as error:
    refused = str(error)
print(refused)
assert "head/kernel" in refused
assert "dense/kernel" in refused
assert "conv_1/kernel" not in refused

# %% [markdown]
# ## Ask about the loss of training
#
# In evaluation BatchNorm divides by running averages, which do not follow the
# weights: then the filters in front of it do have a scale.

# %%
model.eval()
evaluation_loss, _ = loss_and_params(model)
evaluated = psi_optax.find_groups(
    evaluation_loss, params, *batch, method="analysis"
)
print(evaluated["conv_1/kernel"].kind, "-", evaluated["conv_1/kernel"].reason)
assert evaluated["conv_1/kernel"].group is None

# %% [markdown]
# ## Large networks
#
# The proof needs shapes and no numbers: no weight of this ResNet exists.

# %%
depth = 18 if SMOKE else 50
resnet = linen.ResNet(architectures.imagenet_resnet(depth), 1000)
inputs = jax.ShapeDtypeStruct((8, 224, 224, 3), jnp.float32)
targets = jax.ShapeDtypeStruct((8,), jnp.int32)
variables = jax.eval_shape(
    lambda x: resnet.init(jax.random.key(0), x, train=False), inputs
)


def resnet_loss(params, images, labels, statistics):
    logits, _ = resnet.apply(
        {"params": params, "batch_stats": statistics},
        images,
        train=True,
        mutable=["batch_stats"],
    )
    return optax.softmax_cross_entropy_with_integer_labels(
        logits, labels
    ).mean()


large = psi_optax.find_groups(
    resnet_loss, variables["params"], inputs, targets, variables["batch_stats"]
)
sizes = jax.tree.map(lambda x: x.size, variables["params"])
grouped = sum(np.prod(f.shape) for f in large.findings.values() if f.group)
print(f"ResNet-{depth}: {sum(jax.tree.leaves(sizes)):,} weights")
print(f"{int(grouped):,} of them are in scale groups")
print(str(large).splitlines()[-1])
