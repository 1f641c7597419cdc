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
# # Quickstart: training when the scale of weights means nothing
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/psi-optax/psi_optax/blob/main/notebooks/01_quickstart.ipynb)
#
# A filter in front of BatchNorm can be multiplied by any positive number, and
# the network computes what it did before. SGD trains it differently all the
# same. Here we find which weights have no scale, wrap an optimizer, and see the
# difference go away. CPU, GPU or TPU: nothing needs to be edited.

# %%
# Installs only what is missing. JAX stays as it is, since replacing it under a
# running TPU or GPU runtime would need a restart.
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
from sklearn.model_selection import train_test_split

import psi_optax
from psi_optax.models.nnx import MLP

# The tests run this notebook with fewer epochs.
SMOKE = bool(os.environ.get("PSI_OPTAX_SMOKE"))
jax.config.update("jax_disable_most_optimizations", SMOKE)
EPOCHS = 2 if SMOKE else 20
BATCH = 64

# %% [markdown]
# ## Data and model
#
# 1797 handwritten digits of 8 by 8 pixels, which scikit-learn brings along, and
# a multilayer perceptron with BatchNorm.

# %%
digits = load_digits()
images = (digits.images / 16 - 0.3).astype(np.float32)[..., None]
x_train, x_test, y_train, y_test = train_test_split(
    images, digits.target, test_size=0.25, random_state=0
)


def new_model(scale=1.0, epsilon=1e-5):
    """A network whose hidden filters are `scale` times as large as usual."""
    # Momentum 0.9 lets the running statistics, which start at variance 1, catch
    # up with filters of any size within a training as short as this.
    model = MLP(
        64, widths=(64, 64), epsilon=epsilon, momentum=0.9, rngs=nnx.Rngs(0)
    )
    for layer in (model.hidden_0, model.hidden_1):
        layer.kernel[...] = scale * layer.kernel[...]
    return model


# %% [markdown]
# ## Which weights have no scale
#
# `find_groups` reads it off the program of the training loss, and measures it.
# The columns of the two hidden kernels each feed one channel of a BatchNorm;
# scale and bias of the first BatchNorm share a scale that the second one takes
# away. The last layer's kernel looks like the others, but the loss sees it.


# %%
def training_loss(model, x, y):
    logits = model(x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


batch = jnp.asarray(x_train[:BATCH]), jnp.asarray(y_train[:BATCH])
report = psi_optax.find_groups(training_loss, new_model(), *batch)
print(report)

# %% [markdown]
# A report is accepted wherever groups are:
#
#     tx = psi_optax.psi(optax.sgd(schedule, momentum=0.9), report)


# %% [markdown]
# ## Training
#
# An ordinary loop. `psi_sgd` is an optax transform like any other; so is
# `psi_optax.psi(optimizer, groups)` around an optimizer of your choice.


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
    """Returns the losses and the accuracy on the test part."""
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
    # At He initialization |w|² is about 2, so half the rate is the same step.
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
    for scale in scales:
        panel.semilogy(runs[name, scale][0], label=f"scale {scale:g}")
    panel.set(title=name, xlabel="step")
panels[0].set_ylabel("training loss")
panels[0].legend()
figure.tight_layout()

# %% [markdown]
# ## To the last bit
#
# Without BatchNorm's epsilon the network has no scale at all, and neither has
# `psi`: multiply every filter by its own power of two, and the whole training
# is the same in every bit.


# %%
def filters_after_training(factors):
    """The first layer's filters, divided by the factors they started with."""
    model = new_model(epsilon=0.0)
    kernel = model.hidden_0.kernel
    kernel[...] = kernel[...] * factors
    train(optimizers["psi_sgd"], model)
    return model.hidden_0.kernel[...] / factors


powers = 2.0 ** np.random.default_rng(1).integers(-10, 11, (1, 64))
plain = filters_after_training(jnp.ones((1, 64)))
rescaled = filters_after_training(jnp.asarray(powers, jnp.float32))
assert jnp.all(plain == rescaled)
print("identical in every bit")

# %% [markdown]
# ## A step is a rotation
#
# The norms stay where they were, so all that a step can do to a filter is to
# turn it. `rotation` measures by how much, in radians.

# %%
model = new_model()
before = jax.tree.map(jnp.copy, nnx.state(model, nnx.Param))
optimizer = nnx.Optimizer(model, optimizers["psi_sgd"], wrt=nnx.Param)
train_step(model, optimizer, x_train[:BATCH], y_train[:BATCH])
after = nnx.state(model, nnx.Param)

turned = nnx.to_pure_dict(psi_optax.rotation(before, after, report))
angles = turned["hidden_0"]["kernel"]
print(f"hidden_0: {angles.min():.4f} to {angles.max():.4f} radians in a step")

norms = [psi_optax.group_norms(w, report) for w in (before, after)]
for old, new in zip(*map(jax.tree.leaves, norms), strict=True):
    assert np.allclose(old, new, rtol=1e-6)

# %% [markdown]
# ## Where to go from here
#
# - [02](02_finding_scale_groups.ipynb): the groups of your own network, with
#   LayerNorm, GroupNorm and attention
# - [03](03_what_weight_decay_really_does.ipynb): what weight decay does to such
#   weights, and how to do without it
# - [04](04_many_devices.ipynb): several devices, shardings, checkpoints
# - [05](05_bring_your_own.ipynb): your own optimizer, or framework
# - [06](06_what_the_loss_looks_like.ipynb): curvature, stability and shape of
#   the loss
# - [07](07_perturbations_and_averages.ipynb): gradients at perturbed weights,
#   averages of weights
