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
# # Quickstart: training scale-invariant weights
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/psi-optax/psi_optax/blob/main/notebooks/01_quickstart.ipynb)
#
# A filter in front of BatchNorm can be multiplied by any positive number
# without changing the loss. The steps of SGD do change. You will see
#
# 1. `find_groups`, which finds the scale-invariant weights of a network;
# 2. SGD, whose test accuracy depends on the scale of the initial filters, and
#    `psi_sgd`, whose accuracy hardly does;
# 3. two runs of `psi_sgd` from rescaled filters, identical in every bit;
# 4. a step of `psi_sgd` as a rotation of each filter.
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
from sklearn.model_selection import train_test_split

import psi_optax
from psi_optax.models.nnx import MLP

plt.style.use("tableau-colorblind10")
# The tests set PSI_OPTAX_SMOKE for a short run.
SMOKE = bool(os.environ.get("PSI_OPTAX_SMOKE"))
if SMOKE:
    print("A short run: its numbers are not those of the text.")
    jax.config.update("jax_disable_most_optimizations", True)
EPOCHS = 2 if SMOKE else 20
BATCH = 64

# %% [markdown]
# ## Data and model
#
# 1797 handwritten digits of 8 by 8 pixels, which scikit-learn includes, and a
# multilayer perceptron with BatchNorm.

# %%
digits = load_digits()
images = (digits.images / 16 - 0.3).astype(np.float32)[..., None]
x_train, x_test, y_train, y_test = train_test_split(
    images, digits.target, test_size=0.25, random_state=0
)


def new_model(scale=1.0, epsilon=1e-5):
    """Return a network with hidden filters multiplied by `scale`."""
    # Running statistics start at variance 1. With momentum 0.9 they converge in
    # a run of this length, whatever the scale of the filters.
    model = MLP(
        64, widths=(64, 64), epsilon=epsilon, momentum=0.9, rngs=nnx.Rngs(0)
    )
    for layer in (model.hidden_0, model.hidden_1):
        layer.kernel[...] = scale * layer.kernel[...]
    return model


# %% [markdown]
# ## Scale-invariant weights
#
# `find_groups` proves which weights are scale-invariant from the program of the
# training loss, and checks the result numerically. A *scale group* is a set of
# weights that are scale-invariant together. Each column of the two hidden
# kernels feeds one channel of a BatchNorm and is a group. The scale and the
# bias of the first BatchNorm form one group, since the second BatchNorm removes
# their common factor. The kernel of the head is *ordinary*: the loss depends on
# its scale.


# %%
def training_loss(model, x, y):
    logits = model(x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


batch = jnp.asarray(x_train[:BATCH]), jnp.asarray(y_train[:BATCH])
report = psi_optax.find_groups(training_loss, new_model(), *batch)
print(report)

# %% [markdown]
# ## Training
#
# `psi_sgd` is an optax transform and takes the report as its groups. So does
# `psi`, which wraps any other optimizer:
#
#     tx = psi_optax.psi(optax.adam(1e-2), report)


# %%
@nnx.jit
def train_step(model, optimizer, x, y):
    def loss_fn(model):
        logits = model(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    loss, gradients = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, gradients)
    return loss


def train(tx, model):
    """Return the losses of all steps, and the test accuracy."""
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    random = np.random.default_rng(0)
    model.train()
    losses = []
    for _ in range(EPOCHS):
        order = random.permutation(len(x_train))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            batch = order[start : start + BATCH]
            losses.append(
                train_step(model, optimizer, x_train[batch], y_train[batch])
            )
    model.eval()
    accuracy = np.mean(np.argmax(model(x_test), axis=-1) == y_test)
    return np.array(losses), float(accuracy)


steps = EPOCHS * (len(x_train) // BATCH)
optimizers = {
    "SGD": optax.sgd(optax.cosine_decay_schedule(0.2, steps), momentum=0.9),
    # |w|² is about 2 at He initialization: with half the learning rate the
    # first step is that of SGD.
    "psi_sgd": psi_optax.psi_sgd(
        optax.cosine_decay_schedule(0.1, steps), report, momentum=0.9
    ),
}
scales = [0.1, 1.0, 10.0, 100.0]
runs = {
    (name, scale): train(tx, new_model(scale))
    for name, tx in optimizers.items()
    for scale in scales
}

print("test accuracy at initial scale", *(f"{s:>8g}" for s in scales))
for name in optimizers:
    row = [runs[name, scale][1] for scale in scales]
    print(f"{name:30}", *(f"{accuracy:8.3f}" for accuracy in row))

# %%
figure, panels = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
for panel, name in zip(panels, optimizers, strict=True):
    for scale, style in zip(scales, ["-", "--", "-.", ":"], strict=True):
        losses = runs[name, scale][0].reshape(EPOCHS, -1).mean(axis=1)
        panel.semilogy(losses, style, label=f"scale {scale:g}")
    panel.set(title=name, xlabel="epoch")
panels[0].set_ylabel("training loss, mean of an epoch")
panels[0].legend()
figure.tight_layout()

# %% [markdown]
# From filters that are 100 times as large, SGD loses 4 points of test accuracy.
# The accuracies of `psi_sgd` differ by less than half a point. They differ at
# all because of BatchNorm's epsilon and of rounding. At the usual scale the
# accuracy of SGD is 0.4 points higher.

# %%
if not SMOKE:
    sgd, psi_sgd = (
        np.ptp([runs[name, scale][1] for scale in scales])
        for name in optimizers
    )
    assert sgd > 2 * psi_sgd

# %% [markdown]
# ## Identical in every bit
#
# Without epsilon the loss is exactly scale-invariant, and multiplication by a
# power of two does not round. If each filter is multiplied by its own power of
# two, `psi_sgd` computes the same directions in every bit.


# %%
def filters_after_training(tx, factors):
    """Return the first filters, divided by their initial factors."""
    model = new_model(epsilon=0.0)
    kernel = model.hidden_0.kernel
    kernel[...] = kernel[...] * factors
    train(tx, model)
    return model.hidden_0.kernel[...] / factors


powers = 2.0 ** np.random.default_rng(1).integers(-10, 11, (1, 64))
for name, tx in optimizers.items():
    plain = filters_after_training(tx, jnp.ones((1, 64)))
    rescaled = filters_after_training(tx, jnp.asarray(powers, jnp.float32))
    identical = bool(jnp.all(plain == rescaled))
    print(f"{name}:", "identical in every bit" if identical else "different")
    assert identical == (name == "psi_sgd")

# %% [markdown]
# ## A step is a rotation
#
# `psi_sgd` keeps the norm of each filter, so a step is a rotation. `rotation`
# measures its angle in radians.

# %%
model = new_model()
before = jax.tree.map(jnp.copy, nnx.state(model, nnx.Param))
optimizer = nnx.Optimizer(model, optimizers["psi_sgd"], wrt=nnx.Param)
train_step(model, optimizer, x_train[:BATCH], y_train[:BATCH])
after = nnx.state(model, nnx.Param)

turned = nnx.to_pure_dict(psi_optax.rotation(before, after, report))
angles = turned["hidden_0"]["kernel"]
print(f"hidden_0: {angles.min():.4f} to {angles.max():.4f} radians")

norms = [psi_optax.group_norms(w, report) for w in (before, after)]
for old, new in zip(*map(jax.tree.leaves, norms), strict=True):
    assert np.allclose(old, new, rtol=1e-6)

# %% [markdown]
# ## Next
#
# - [02](02_finding_scale_groups.ipynb): the groups of your own network, with
#   LayerNorm, GroupNorm and attention
# - [03](03_what_weight_decay_really_does.ipynb): the rotation that weight decay
#   causes, and the same rotation without weight decay
# - [04](04_many_devices.ipynb): several devices, shardings, checkpoints
# - [05](05_bring_your_own.ipynb): your own optimizer or framework
# - [06](06_what_the_loss_looks_like.ipynb): curvature, stability and shape of
#   the loss
# - [07](07_perturbations_and_averages.ipynb): gradients at perturbed weights,
#   averages of weights
