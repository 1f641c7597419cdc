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
# A *scale group* is a set of weights that can be multiplied together by any
# positive number without changing the loss. You will see
#
# 1. `find_groups`, which finds the groups of a network with BatchNorm,
#    GroupNorm, LayerNorm and attention with normalized queries and keys, and
#    gives a reason for each parameter without groups;
# 2. the loss as a function of the scale of each parameter;
# 3. the same groups specified by hand, and `check_groups`, which rejects two
#    wrong ones;
# 4. the loss of evaluation, for which filters in front of BatchNorm are not
#    scale-invariant;
# 5. the groups of a ResNet-50, found without allocating its weights.
#
# On Colab choose a CPU runtime: the notebook takes about 20 seconds on two CPU
# cores. It runs without changes on a GPU or a TPU.

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
# %matplotlib inline
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

plt.style.use("tableau-colorblind10")
# The tests set PSI_OPTAX_SMOKE for a short run: no numerical check, and a
# smaller ResNet.
SMOKE = bool(os.environ.get("PSI_OPTAX_SMOKE"))
if SMOKE:
    print("A short run: its numbers are not those of the text.")
    jax.config.update("jax_disable_most_optimizations", True)

# %% [markdown]
# ## A network with four normalizations
#
# BatchNorm follows the first convolution, GroupNorm the second, and LayerNorm a
# dense layer. Attention normalizes its queries and keys. All layers are those
# of Flax, with their default biases.


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
    """Return random weights and biases: a zero bias equals its multiples."""
    random = np.random.default_rng(0)

    def fill(x):
        size = 2 / np.sqrt(np.prod(x.shape[:-1]))
        return jnp.asarray(size * random.normal(size=x.shape), x.dtype)

    return jax.tree.map(fill, params)


def loss_and_params(model):
    """Return a function loss(params, images, labels), and params."""
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
# ## Find
#
# `find_groups` proves groups from the program of the training loss. Then it
# checks them numerically on the batch, in double precision. A few examples are
# enough.

# %%
report = psi_optax.find_groups(
    loss, params, *batch, method="analysis" if SMOKE else "both"
)
print(report)

# %% [markdown]
# The columns *axes* and *groups* have the axes that a norm sums over, and the
# number of norms.
#
# - `conv_1` feeds a BatchNorm: each of its 16 filters is a group. BatchNorm
#   subtracts the bias, so its gradient is zero: it is *inert* and can be
#   dropped.
# - `conv_2` feeds a GroupNorm, which normalizes 4 blocks of channels: `3:4` is
#   axis 3 divided into 4 blocks. The bias is added before the normalization, so
#   the loss is invariant only if kernel and bias are multiplied together: they
#   have the same *tie*.
# - Queries and keys are normalized per head. Each head of a kernel is a group,
#   tied to the same head of the bias.
# - `dense` feeds a LayerNorm: kernel and bias are one group.
# - The others are *ordinary*: the loss depends on their scale, and *notes*
#   gives the reason. A rescaling symmetry multiplies one parameter and divides
#   another, so it is no group. `norm_1` and `conv_2/bias` share a scale, but
#   `conv_2/bias` is already tied.

# %%
for name in ("conv_1/bias", "dense/kernel", "attention/value/kernel"):
    found = report[name]
    print(f"{name}: {found.kind}; {found.group or found.reason}")

# %% [markdown]
# ## The loss as a function of scale
#
# Parameters are multiplied by a factor, and the loss is divided by the loss at
# factor 1. *Left:* parameters with groups, tied ones together. The loss is
# constant, except where weights are so small that the epsilon of a norm counts.
# *Middle:* kernels without the bias to which they are tied. *Right:* ordinary
# parameters.

# %%
flat = nnx.to_flat_state(params)
names = ["/".join(path) for path in flat.paths]


@jax.jit
@jax.vmap
def losses_at(factors):
    """Return the losses at parameters multiplied by factors."""
    scaled = [
        (path, variable.replace(factor * variable[...]))
        for (path, variable), factor in zip(flat, factors, strict=True)
    ]
    return loss(nnx.from_flat_state(scaled), *batch)


# Powers of two: multiplication by them does not round.
factors = 2.0 ** np.arange(-12, 7)


ties = {}
for name in names:
    if (group := report[name].group) is not None:
        ties[group.tie or name] = (*ties.get(group.tie or name, ()), name)
panels = {
    "scale groups, ties together": list(ties.values()),
    "one parameter of a tie": [
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
# The largest deviation of each line from 1, for factors above 1:


# %%
furthest = {
    title: [float(np.abs(changes[x][factors > 1] - 1).max()) for x in lines]
    for title, lines in panels.items()
}
for title, found in furthest.items():
    print(f"{title}: {min(found):.1e} to {max(found):.1e}")
assert max(furthest["scale groups, ties together"]) < 1e-5
assert min(furthest["one parameter of a tie"]) > 1e-4
assert min(furthest["ordinary parameters"]) > 1e-4

# %% [markdown]
# ## Fewer groups
#
# A report can be passed wherever groups are expected, such as
# `psi(optax.adam(1e-2), report)`. `select` keeps the groups of the parameters
# that match a pattern and makes the others ordinary. Tied parameters have to be
# selected together.

# %%
convolutions = report.select(r"conv_\d/.*")
print([path for path, f in convolutions.findings.items() if f.group])

# %% [markdown]
# ## Groups by hand
#
# The same groups from patterns of paths. Parameters that match no pattern are
# ordinary. For filters in front of BatchNorm
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
# `check_groups` checks groups numerically. Here it rejects two: the loss
# depends on the scale of the head, and on that of the kernel of `dense` without
# its bias.

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
# ## Use the training loss
#
# In evaluation BatchNorm divides by running statistics, which do not change
# with the weights. The loss then depends on the scale of the filters.

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
# The proof needs only shapes: the weights of this ResNet are never allocated.

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
