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
# # Bring your own optimizer and framework
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/psi-optax/psi_optax/blob/main/notebooks/05_bring_your_own.ipynb)
#
# `psi` wraps any optax optimizer, and parameters may be any tree of arrays. You
# will see
#
# 1. six optimizers, one of them written here: alone, each trains differently
#    when scale-invariant weights are rescaled; in `psi`, losses are identical
#    in every bit;
# 2. `psi` in combination with `optax.partition`, masks, `inject_hyperparams`
#    and `MultiSteps`;
# 3. one network in plain JAX, Flax NNX, Flax Linen, Equinox and Haiku, with the
#    same losses up to rounding.
#
# On Colab choose a CPU runtime: the notebook takes about a minute on two CPU
# cores. It runs without changes on a GPU or a TPU.

# %%
# Installs missing packages. JAX keeps its version: replacing it in a running
# GPU or TPU runtime requires a restart.
import importlib.metadata
import importlib.util
import subprocess
import sys

source = "git+https://github.com/psi-optax/psi_optax"
packages = {
    "psi_optax": f"psi_optax[benchmarks] @ {source}",
    "equinox": "equinox",
    "haiku": "dm-haiku",
}
missing = [
    package
    for module, package in packages.items()
    if importlib.util.find_spec(module) is None
]
if missing:
    if importlib.util.find_spec("jax") is not None:
        missing.append(f"jax=={importlib.metadata.version('jax')}")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", *missing], check=True
    )

import jax

print(
    f"Python {sys.version.split()[0]}, JAX {jax.__version__}, {jax.devices()}"
)

# %%
# %matplotlib inline
import functools
import os

import equinox as eqx
import haiku as hk
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import linen, nnx
from sklearn.datasets import load_digits

import psi_optax

plt.style.use("tableau-colorblind10")
# The tests set PSI_OPTAX_SMOKE for a short run.
SMOKE = bool(os.environ.get("PSI_OPTAX_SMOKE"))
if SMOKE:
    print("A short run: its numbers are not those of the text.")
    jax.config.update("jax_disable_most_optimizations", True)
STEPS = 10 if SMOKE else 100
# By default TPUs and some GPUs multiply float32 numbers in a lower precision.
# With the highest, frameworks differ only by the order of sums.
jax.config.update("jax_default_matmul_precision", "highest")

digits = load_digits()
images = jnp.asarray(digits.data[:512] / 16, jnp.float32)
labels = jnp.asarray(digits.target[:512], jnp.int32)

# %% [markdown]
# ## A network in plain JAX
#
# The kernel and the bias of a dense layer in front of LayerNorm form one scale
# group: the loss is invariant if both are multiplied by the same number. We say
# that `find_groups` ties them.


# %%
def kernel(seed, fan_in, fan_out):
    random = np.random.default_rng(seed)
    w = random.normal(size=(fan_in, fan_out)) / np.sqrt(fan_in)
    return jnp.asarray(w, jnp.float32)


weights = {
    "hidden": {"kernel": kernel(0, 64, 32), "bias": 0.1 * kernel(1, 1, 32)[0]},
    "norm": {"scale": jnp.ones(32), "bias": jnp.zeros(32)},
    "head": {"kernel": kernel(2, 32, 10), "bias": jnp.zeros(10)},
}


def network(params, x, epsilon=1e-5):
    hidden, norm, head = params["hidden"], params["norm"], params["head"]
    x = x @ hidden["kernel"] + hidden["bias"]
    x = jax.nn.standardize(x, axis=-1, epsilon=epsilon)
    x = jax.nn.relu(x * norm["scale"] + norm["bias"])
    return x @ head["kernel"] + head["bias"]


def cross_entropy(logits):
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean()


def plain_loss(params):
    return cross_entropy(network(params, images))


report = psi_optax.find_groups(plain_loss, weights, method="analysis")
print(report)


# %%
@functools.partial(jax.jit, static_argnums=(0, 1, 3))
def train(loss_of, tx, params, steps=STEPS):
    """Return the losses of all steps, and the last weights."""

    def step(carry, _):
        params, state = carry
        loss, gradients = jax.value_and_grad(loss_of)(params)
        updates, state = tx.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), loss

    start = params, tx.init(params)
    (params, _), losses = jax.lax.scan(step, start, length=steps)
    return losses, params


# %% [markdown]
# ## Any optimizer
#
# `psi` passes to the inner optimizer the directions of weights, which are
# normalized to 1, and their gradients. The inner optimizer needs no knowledge
# of groups. `signum`, a momentum method that uses only signs, is written here.


# %%
def signum(learning_rate, decay=0.9):
    def init_fn(params):
        return optax.tree.zeros_like(params)

    def update_fn(updates, state, params=None):
        del params
        state = jax.tree.map(lambda m, g: decay * m + g, state, updates)
        return jax.tree.map(
            lambda m: -learning_rate * jnp.sign(m), state
        ), state

    return optax.GradientTransformation(init_fn, update_fn)


# A function that makes the optimizer, its learning rate, and the degree of its
# updates: -1 if they are inversely proportional to the scale of the weights, 0
# if they do not depend on it.
optimizers = {
    "signum, by hand": (signum, 0.001, 0),
    "SGD, momentum": (functools.partial(optax.sgd, momentum=0.9), 0.1, -1),
    "Adam": (optax.adam, 0.002, 0),
    "RMSProp": (optax.rmsprop, 0.001, 0),
    "Lion": (optax.lion, 0.001, 0),
    "clip, then Adam": (
        lambda rate: optax.chain(
            optax.clip_by_global_norm(0.5), optax.adam(rate)
        ),
        0.002,
        0,
    ),
}
if SMOKE:
    optimizers = dict(list(optimizers.items())[:1])

# %% [markdown]
# Each optimizer trains alone and in `psi`, from the same weights and from
# weights with the hidden layer multiplied by 32. Without the epsilon of
# LayerNorm both networks compute the same function. In `psi` their losses are
# identical in every bit, since multiplication by 32 does not round.
#
# A direction has norm 1 and needs another learning rate than weights.
# `effective_learning_rate` returns the one with which the first step of `psi`
# is that of the optimizer alone. Ordinary parameters keep theirs.


# %%
def exact_loss(params):
    return cross_entropy(network(params, images, epsilon=0.0))


FACTOR = 32.0
large = weights | {
    "hidden": jax.tree.map(lambda x: FACTOR * x, weights["hidden"])
}
runs = {}
for name, (build, rate, degree) in optimizers.items():
    felt = psi_optax.diagnostics.effective_learning_rate(
        rate, weights, report, degree=degree
    )
    inner = build(felt["hidden"]["kernel"].item())
    tx = psi_optax.psi(inner, report, ordinary=build(rate))
    for kind, optimizer in ("alone", build(rate)), ("psi", tx):
        runs[name, kind] = [
            train(exact_loss, optimizer, start)[0] for start in (weights, large)
        ]

figure, panels = plt.subplots(
    2,
    len(optimizers),
    figsize=(2.3 * len(optimizers), 4.2),
    sharex=True,
    sharey=True,
    squeeze=False,
)
for column, name in enumerate(optimizers):
    for row, kind in enumerate(["alone", "psi"]):
        panel = panels[row, column]
        usual, other = runs[name, kind]
        panel.semilogy(usual, lw=3, alpha=0.5, label="weights")
        panel.semilogy(other, "k--", lw=1, label=f"weights times {FACTOR:g}")
        panel.set_title(name if kind == "alone" else f"psi({name})", size=9)
for panel in panels[-1]:
    panel.set_xlabel("step")
for panel in panels[:, 0]:
    panel.set_ylabel("loss")
panels[0, 0].legend(fontsize=7)
figure.tight_layout()

for (name, kind), (usual, other) in runs.items():
    identical = bool(np.array_equal(usual, other))
    found = "identical in every bit" if identical else "different"
    print(f"{name}, {kind}: {found}")
    assert identical == (kind == "psi")

# %% [markdown]
# ## Combinations with optax
#
# **Directions.** `psi_direction(learning_rate, direction, groups)` takes a
# transform without a learning rate, and makes no scaled copy of its updates.
# With `optax.trace` it takes the steps of `psi_sgd`.


# %%
def last_weights(tx):
    return train(plain_loss, tx, weights, 10)[1]


def same(a, b, tolerance=0.0):
    close = functools.partial(np.allclose, rtol=0.0, atol=tolerance)
    return jax.tree.all(jax.tree.map(close, a, b))


direction = last_weights(
    psi_optax.psi_direction(0.003, optax.trace(0.9), report)
)
recipe = last_weights(psi_optax.psi_sgd(0.003, report, momentum=0.9))
assert same(direction, recipe, 1e-4)

# %% [markdown]
# **Ordinary parameters** can have an optimizer of their own, or stay constant.
# Scale groups keep their norms in any case.

# %%
norms = psi_optax.group_norms(weights, report)
tx = psi_optax.psi(optax.adam(0.002), report, ordinary=optax.set_to_zero())
frozen = last_weights(tx)
assert same(frozen["head"], weights["head"])
assert not same(frozen["hidden"], weights["hidden"], 0.01)
assert same(psi_optax.group_norms(frozen, report), norms, 1e-5)

# %% [markdown]
# **Masks.** `group_labels` labels each parameter as in a group or ordinary, for
# `optax.partition` and for masks. Weight decay has no effect on a sphere, so
# `psi_adam` applies it to ordinary parameters only.

# %%
kinds = psi_optax.group_labels(weights, report)
print(kinds)
mask = jax.tree.map(lambda kind: kind == "ordinary", kinds)
inner = optax.adamw(0.002, weight_decay=0.5, mask=mask)
by_mask = last_weights(psi_optax.psi(inner, report))
recipe = last_weights(psi_optax.psi_adam(0.002, report, weight_decay=0.5))
assert same(by_mask, recipe, 1e-4)

# %% [markdown]
# **Injected learning rates and accumulated gradients.** `inject_hyperparams`
# makes the learning rate a part of the state. With `MultiSteps` weights change
# in every fourth step.

# %%
gradients = jax.jit(jax.grad(plain_loss))(weights)
tx = optax.inject_hyperparams(psi_optax.psi_sgd)(0.003, report, momentum=0.9)
state = tx.init(weights)
state.hyperparams["learning_rate"] = jnp.asarray(0.006)
updates, state = jax.jit(tx.update)(gradients, state, weights)
new = optax.apply_updates(weights, updates)
turned = psi_optax.rotation(weights, new, report)["hidden"]["kernel"]
# The step of one group: the learning rate times |w||g|, of kernel and bias.
slope = psi_optax.group_norms(gradients, report)["hidden"]["kernel"]
expected = jnp.arctan(0.006 * slope * norms["hidden"]["kernel"])
print(f"rotation {turned:.5f} radians, expected {expected:.5f}")
assert np.allclose(turned, expected, rtol=1e-2)

accumulated = optax.MultiSteps(
    psi_optax.psi_sgd(0.003, report, momentum=0.9), every_k_schedule=4
)
params, state = weights, accumulated.init(weights)
update = jax.jit(accumulated.update)
moved = []
for _ in range(8):
    updates, state = update(gradients, state, params)
    moved.append(bool(jnp.any(updates["hidden"]["kernel"] != 0)))
    params = optax.apply_updates(params, updates)
print("steps with a change:", moved)
assert moved == 2 * [False, False, False, True]

# %% [markdown]
# ## Any framework
#
# The same network with the layers of each framework, and the same weights.
# `find_groups` and optax need a tree of arrays and a function from it to the
# loss.
#
# **Flax NNX**: the state of all `nnx.Param`s. The
# [quickstart](01_quickstart.ipynb) uses `nnx.Optimizer`.


# %%
class NnxNetwork(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(64, 32, rngs=rngs)
        self.norm = nnx.LayerNorm(
            32, epsilon=1e-5, use_fast_variance=False, rngs=rngs
        )
        self.head = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.norm(self.hidden(x))))


graph, nnx_params = nnx.split(nnx.eval_shape(lambda: NnxNetwork(nnx.Rngs(0))))
nnx.replace_by_pure_dict(nnx_params, weights)


def nnx_loss(params):
    return cross_entropy(nnx.merge(graph, params)(images))


# %% [markdown]
# **Flax Linen**: `variables["params"]`.


# %%
class LinenNetwork(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.Dense(32, name="hidden")(x)
        x = linen.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="norm")(
            x
        )
        return linen.Dense(10, name="head")(linen.relu(x))


def linen_loss(params):
    return cross_entropy(LinenNetwork().apply({"params": params}, images))


# %% [markdown]
# **Equinox**: the arrays of the module, from `eqx.partition`. Kernels have the
# axis of outputs first.


# %%
class EquinoxNetwork(eqx.Module):
    hidden: eqx.nn.Linear
    norm: eqx.nn.LayerNorm
    head: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key)
        self.hidden = eqx.nn.Linear(64, 32, key=keys[0])
        self.norm = eqx.nn.LayerNorm(32, eps=1e-5)
        self.head = eqx.nn.Linear(32, 10, key=keys[1])

    def __call__(self, x):
        return self.head(jax.nn.relu(self.norm(self.hidden(x))))


def places(module):
    return [
        *(module.hidden.weight, module.hidden.bias),
        *(module.norm.weight, module.norm.bias),
        *(module.head.weight, module.head.bias),
    ]


module = eqx.tree_at(
    places,
    eqx.filter_eval_shape(EquinoxNetwork, jax.random.key(0)),
    [
        *(weights["hidden"]["kernel"].T, weights["hidden"]["bias"]),
        *(weights["norm"]["scale"], weights["norm"]["bias"]),
        *(weights["head"]["kernel"].T, weights["head"]["bias"]),
    ],
)
equinox_params, static = eqx.partition(module, eqx.is_inexact_array)


def equinox_loss(params):
    return cross_entropy(jax.vmap(eqx.combine(params, static))(images))


# %% [markdown]
# **Haiku**: the result of `init`.


# %%
@hk.without_apply_rng
@hk.transform
def haiku_network(x):
    x = hk.Linear(32, name="hidden")(x)
    x = hk.LayerNorm(
        axis=-1, create_scale=True, create_offset=True, name="norm"
    )(x)
    return hk.Linear(10, name="head")(jax.nn.relu(x))


haiku_names = {"kernel": "w", "bias": "b", "scale": "scale"}
haiku_params = {
    layer: {haiku_names[name]: x for name, x in arrays.items()}
    for layer, arrays in weights.items()
}
haiku_params["norm"]["offset"] = haiku_params["norm"].pop("b")


def haiku_loss(params):
    return cross_entropy(haiku_network.apply(params, images))


# %% [markdown]
# `find_groups` finds the groups of each tree, and each network trains:

# %%
frameworks = {
    "plain JAX": (plain_loss, weights),
    "Flax NNX": (nnx_loss, nnx_params),
    "Flax Linen": (linen_loss, weights),
    "Equinox": (equinox_loss, equinox_params),
    "Haiku": (haiku_loss, haiku_params),
}
results = {}
for name, (loss_of, params) in frameworks.items():
    found = psi_optax.find_groups(loss_of, params, method="analysis")
    tx = psi_optax.psi(optax.adam(3e-4), found, ordinary=optax.adam(3e-3))
    results[name] = np.asarray(train(loss_of, tx, params)[0])
    print(f"{name}: loss {results[name][0]:.6f} to {results[name][-1]:.6f}")
    for path, finding in found.findings.items():
        if finding.group is not None:
            print(f"    {path}: {finding.group}")

# %% [markdown]
# Losses are the same up to the order of sums. The control is a learning rate
# that is 1 % larger.

# %%
expected = results["plain JAX"]
tx = psi_optax.psi(optax.adam(3.03e-4), report, ordinary=optax.adam(3e-3))
other = np.asarray(train(plain_loss, tx, weights)[0])
control = np.abs(other / expected - 1).max()
print(f"learning rate 1 % larger: losses differ by {control:.1e}")
for name, losses in results.items():
    difference = np.abs(losses / expected - 1).max()
    print(f"{name}: losses differ by {difference:.1e}")
    assert difference < control / 10
