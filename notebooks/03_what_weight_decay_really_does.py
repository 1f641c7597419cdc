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
# # What weight decay does to scale-invariant weights
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/psi-optax/psi_optax/blob/main/notebooks/03_what_weight_decay_really_does.ipynb)
#
# Weight decay does not change the loss of a network whose filters are in front
# of BatchNorm, since the loss does not depend on their norms. It determines the
# angle by which each step rotates a filter. You will see
#
# 1. SGD with weight decay, whose norms and angles approach the same equilibrium
#    from three initial norms, as `psi_optax.dynamics` predicts;
# 2. angles that depend on the product of learning rate and weight decay;
# 3. AdamW, whose predictions are less accurate;
# 4. `rotational` and `psi_sgd`, which rotate filters by the same angle without
#    weight decay;
# 5. test accuracies, which are highest for SGD without weight decay: its angles
#    decay, while the learning rates are constant;
# 6. a monitor of norms and angles for your own training.
#
# On Colab choose a CPU runtime: the notebook takes about half a minute on two
# CPU cores. It runs without changes on a GPU or a TPU.

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
import functools
import os

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import psi_optax

plt.style.use("tableau-colorblind10")
# The tests set PSI_OPTAX_SMOKE for a short run.
SMOKE = bool(os.environ.get("PSI_OPTAX_SMOKE"))
if SMOKE:
    print("A short run: its numbers are not those of the text.")
STEPS = 2000 if SMOKE else 4000
SETTLED = slice(STEPS // 2, None)
BATCH, WIDTH = 64, 32

# %% [markdown]
# ## Network and data
#
# Digits of 8 by 8 pixels, and two hidden layers whose outputs are normalized
# over the batch, as in the training mode of BatchNorm. In each batch a fifth of
# the labels are random, so that gradients do not vanish.

# %%
digits = load_digits()
# Without pixels that are nearly constant: their gradients are small and noisy,
# and Adam divides them by their size.
pixels = digits.data[:, digits.data.std(axis=0) > 1] / 16
x_train, x_test, y_train, y_test = map(
    jnp.asarray,
    train_test_split(
        pixels.astype(np.float32), digits.target, test_size=0.25, random_state=0
    ),
)
groups = {
    "hidden_0": psi_optax.ScaleGroup(axes=0),
    "hidden_1": psi_optax.ScaleGroup(axes=0),
    "head": None,
}
layers = ["hidden_0", "hidden_1"]
decayed = {"hidden_0": True, "hidden_1": True, "head": False}


def new_params(scale=1.0):
    """Return weights with hidden filters multiplied by `scale`."""
    random = np.random.default_rng(0)

    def kernel(fan_in, fan_out):
        w = random.normal(size=(fan_in, fan_out)) / np.sqrt(fan_in)
        return jnp.asarray(w, jnp.float32)

    return {
        "hidden_0": scale * kernel(x_train.shape[1], WIDTH),
        "hidden_1": scale * kernel(WIDTH, WIDTH),
        "head": kernel(WIDTH, 10),
    }


def logits_of(params, x):
    for layer in layers:
        x = jax.nn.relu(jax.nn.standardize(x @ params[layer], axis=0))
    return x @ params["head"]


def loss_of(params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(
        logits_of(params, x), y
    ).mean()


# The examples of each batch, and their labels.
random = np.random.default_rng(1)
chosen = random.integers(len(x_train), size=(STEPS, BATCH))
labels = np.where(
    random.uniform(size=chosen.shape) < 0.2,
    random.integers(10, size=chosen.shape),
    y_train[chosen],
)
batches = jnp.asarray(chosen), jnp.asarray(labels)


def train_one(build, settings, params):
    """Train with the optimizer `build(*settings)`.

    Returns:
        The test accuracy, and for each layer and step the norm of each filter,
        its rotation, and the norm of its gradient times that of the filter,
        which does not depend on scale.
    """
    tx = build(*settings)

    def step(carry, batch):
        params, state = carry
        index, labels = batch
        gradients = jax.grad(loss_of)(params, x_train[index], labels)
        updates, state = tx.update(gradients, state, params)
        new = optax.apply_updates(params, updates)
        norm = psi_optax.group_norms(params, groups)
        slope = psi_optax.group_norms(gradients, groups)
        turned = psi_optax.rotation(params, new, groups)
        seen = {
            layer: {
                "norm": norm[layer],
                "rotation": turned[layer],
                "gradient": norm[layer] * slope[layer],
            }
            for layer in layers
        }
        return (new, state), seen

    (params, _), seen = jax.lax.scan(step, (params, tx.init(params)), batches)
    # The test examples are normalized as one batch.
    right = jnp.argmax(logits_of(params, x_test), axis=-1) == y_test
    return right.mean(), seen


@functools.partial(jax.jit, static_argnums=0)
def train_all(build, settings, starts):
    return jax.vmap(functools.partial(train_one, build))(settings, starts)


def train(build, *settings, scales):
    """Train several runs together, each with another scale of filters."""
    starts = jax.tree.map(lambda *x: jnp.stack(x), *map(new_params, scales))
    settings = [jnp.full(len(scales), x, jnp.float32) for x in settings]
    return jax.device_get(train_all(build, settings, starts))


def rms(x, axis=None):
    return np.sqrt(np.mean(np.square(x, dtype=np.float64), axis=axis))


# %% [markdown]
# ## Equilibrium from three initial norms
#
# SGD with weight decay starts from filters of usual norm, and of a third and
# three times that norm. The dashed lines are the predictions of
# `equilibrium_transient` and `equilibrium_rotation`, which take the norms of
# the gradients.

# %%
RATE, DECAY, MOMENTUM = 0.05, 0.01, 0.9


def decayed_sgd(rate, decay):
    return optax.chain(
        optax.add_decayed_weights(decay, decayed),
        optax.sgd(rate, momentum=MOMENTUM),
    )


SCALES = [1 / 3, 1.0, 3.0]
STYLES = [{"color": f"C{index}", "lw": 0.8} for index in range(3)]
accuracies, seen = train(decayed_sgd, RATE, DECAY, scales=SCALES)


def show(run, transients, rotation):
    """Plot norms and rotations of the first layer, with predictions."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.5))
    turned = rms(run["rotation"], -1)
    for index, style in enumerate(STYLES):
        label = f"filters times {SCALES[index]:.2g}"
        left.plot(run["norm"][index].mean(-1), label=label, **style)
        left.plot(transients[index].mean(-1), "--", color=style["color"])
        right.plot(turned[index], **style)
    right.axhline(rotation, color="black", ls="--", label="equilibrium")
    left.set(title="norm (mean of filters)", xlabel="step")
    right.set(title="rotation, radians per step (RMS)", xlabel="step")
    for panel in (left, right):
        panel.set(xscale="log", yscale="log")
        panel.legend(fontsize=8)
    figure.tight_layout()


steps = np.arange(STEPS)[:, None]
sgd = {"learning_rate": RATE, "weight_decay": DECAY, "momentum": MOMENTUM}
sgd_angle = float(psi_optax.dynamics.equilibrium_rotation(**sgd))
# Of each run and each filter, in the second half of the steps.
gradient_norms = {
    layer: rms(run["gradient"][:, SETTLED], 1)[:, None]
    for layer, run in seen.items()
}
show(
    seen["hidden_0"],
    psi_optax.dynamics.equilibrium_transient(
        steps,
        seen["hidden_0"]["norm"][:, :1],
        gradient_norm=gradient_norms["hidden_0"],
        **sgd,
    ),
    sgd_angle,
)

# %% [markdown]
# From all three initial norms, filters reach the same norm and the same
# rotation per step. The angle depends only on the learning rate η, the weight
# decay λ and the momentum μ: it is √(2ηλ/(1+μ)). The norm depends on the
# gradients, too.


# %%
def compare(seen, rotation, norms):
    """Return measured over predicted values, of both layers and all runs."""
    found = {
        layer: (
            rms(run["rotation"][:, SETTLED], (1, 2)) / rotation,
            np.mean(run["norm"][:, SETTLED] / norms[layer], (1, 2)),
        )
        for layer, run in seen.items()
    }
    for layer, (turned, norm) in found.items():
        print(f"{layer}, measured over predicted, from three initial norms:")
        print(f"    rotation {turned.round(3)}, norm {norm.round(3)}")
    return np.array(list(found.values()))


norms = {
    layer: np.float64(
        psi_optax.dynamics.equilibrium_norm(gradient_norm=gradient_norm, **sgd)
    )
    for layer, gradient_norm in gradient_norms.items()
}
quotients = compare(seen, sgd_angle, norms)
assert np.all(np.abs(quotients - 1) < 0.05)

# %% [markdown]
# ## The product of learning rate and weight decay
#
# Each point is a run with one pair of learning rate and weight decay. The angle
# follows from their product.

# %%
rates = np.array([0.025, 0.05, 0.1])
decays = [0.02] if SMOKE else [0.005, 0.01, 0.02, 0.04]
measured, predicted = [], []
for decay in decays:
    _, run = train(decayed_sgd, rates, decay, scales=[1.0] * len(rates))
    measured.append(rms(run["hidden_0"]["rotation"][:, SETTLED], (1, 2)))
    predicted.append(
        psi_optax.dynamics.equilibrium_rotation(rates, decay, momentum=MOMENTUM)
    )
measured, predicted = np.array(measured), np.array(predicted)

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.5), sharey=True)
for index, rate in enumerate(rates):
    # Circles of different sizes, since points of equal products coincide.
    look = {"marker": "o", "ms": 6 + 4 * index, "mfc": "none"}
    found = measured[:, index]
    left.loglog(decays, found, **look, label=f"learning rate {rate:g}")
    right.loglog(predicted[:, index], found, **look, ls="none")
ends = [predicted.min(), predicted.max()]
right.loglog(ends, ends, color="black", ls="--", lw=0.8)
left.set(xlabel="weight decay", ylabel="rotation, radians per step")
right.set(xlabel="predicted rotation")
left.legend()
figure.tight_layout()
print("measured over predicted:")
print((measured / predicted).round(3))
assert np.all(np.abs(measured / predicted - 1) < 0.05)

# %% [markdown]
# ## AdamW
#
# AdamW reaches the rotation √(2ηλ(1-β₁)/(1+β₁)), at a norm that depends on the
# number of weights in a filter. The derivation assumes gradients of equal
# variance in all directions. Gradients of the second layer, whose inputs are
# outputs of a ReLU, do not satisfy it: its norms are 9 % larger than predicted,
# and its rotation is 11 % smaller.

# %%
ADAM_RATE, ADAM_DECAY = 0.005, 0.5


def decayed_adam(rate, decay):
    return optax.adamw(rate, b2=0.99, weight_decay=decay, mask=decayed)


adam = {
    "learning_rate": ADAM_RATE,
    "weight_decay": ADAM_DECAY,
    "optimizer": "adamw",
}
_, adam_seen = train(decayed_adam, ADAM_RATE, ADAM_DECAY, scales=SCALES)
adam_angle = float(psi_optax.dynamics.equilibrium_rotation(**adam))
start = new_params()
sizes = {layer: len(start[layer]) for layer in layers}
show(
    adam_seen["hidden_0"],
    psi_optax.dynamics.equilibrium_transient(
        steps,
        adam_seen["hidden_0"]["norm"][:, :1],
        size=sizes["hidden_0"],
        **adam,
    ),
    adam_angle,
)
norms = {
    layer: np.float64(psi_optax.dynamics.equilibrium_norm(size=size, **adam))
    for layer, size in sizes.items()
}
quotients = compare(adam_seen, adam_angle, norms)
assert np.all(np.abs(quotients - 1) < 0.2)

# %% [markdown]
# ## The same rotation without weight decay
#
# An optimizer that keeps norms can rotate by the same angle from the first
# step. `matching_learning_rate` returns its learning rate, given those of SGD
# with weight decay. For `rotational` this is sufficient. The rotation of
# `psi_sgd` is proportional to the norm of the gradient, which has to be
# estimated: pilot runs correct the estimate by the ratio of measured and wanted
# rotation.

# %%
head = optax.sgd(RATE, momentum=MOMENTUM)


def matched(gradient_norm=None):
    return psi_optax.dynamics.matching_learning_rate(
        gradient_norm=gradient_norm, **sgd
    )


def psi_sgd(rate):
    return psi_optax.psi_sgd(rate, groups, momentum=MOMENTUM, ordinary=head)


def rotational(rate):
    return psi_optax.rotational(
        rate, optax.trace(MOMENTUM), groups, ordinary=head
    )


gradient_norm = 0.1
for _ in range(3):
    _, pilot = train(psi_sgd, matched(gradient_norm), scales=SCALES)
    turned = rms([run["rotation"] for run in pilot.values()])
    gradient_norm = gradient_norm * turned / sgd_angle
    print(f"pilot: measured over wanted rotation {turned / sgd_angle:.3f}")

# %%
runs = {
    "SGD, weight decay": (accuracies, seen),
    "SGD, no decay": train(decayed_sgd, RATE, 0.0, scales=SCALES),
    "rotational, matched": train(rotational, matched(), scales=SCALES),
    "psi_sgd, matched": train(psi_sgd, matched(gradient_norm), scales=SCALES),
}
figure, panels = plt.subplots(1, 4, figsize=(13, 3.2), sharey=True)
for panel, (name, (_, run)) in zip(panels, runs.items(), strict=True):
    for index, scale in enumerate(SCALES):
        panel.loglog(
            rms(run["hidden_0"]["rotation"][index], 1),
            label=f"filters times {scale:.2g}",
            **STYLES[index],
        )
    panel.axhline(sgd_angle, color="black", ls="--")
    panel.set(title=name, xlabel="step")
panels[0].set_ylabel("rotation, radians per step")
panels[0].legend(fontsize=7)
figure.tight_layout()


def relative_rotation(run, part=slice(None)):
    """Return the RMS rotation of each run, relative to the equilibrium."""
    turned = [run[layer]["rotation"][:, part] for layer in layers]
    return rms(turned, (0, 2, 3)) / sgd_angle


print(f"{'':20}  RMS rotation over that of equilibrium, and test accuracy")
for name, (right, run) in runs.items():
    turned = relative_rotation(run)
    cells = [f"{t:6.2f} {a:6.3f}" for t, a in zip(turned, right, strict=True)]
    print(f"{name:20}", " |".join(cells))

# %% [markdown]
# Without weight decay the rotation depends on the initial norm during the whole
# run: small filters rotate fast and grow, large ones hardly rotate.
# `rotational` has nearly the rotation of the equilibrium from the first step.
# `psi_sgd` has it in the mean over steps and layers: it rotates faster while
# gradients are large.
#
# All learning rates are constant here, and the noise that is left in the
# weights grows with the rotation. SGD without weight decay has the highest
# accuracies, as its rotation decays. For each method decay the learning rate.

# %%
early, all_steps = (
    {name: relative_rotation(run, part) for name, (_, run) in runs.items()}
    for part in (slice(100), slice(None))
)
for name, quotients in early.items():
    print(f"{name}, first 100 steps: rotation {quotients.round(2)}")
assert np.all(np.abs(early["rotational, matched"] - 1) < 0.1)
assert np.all(np.abs(all_steps["rotational, matched"] - 1) < 0.1)
assert np.all(np.abs(all_steps["psi_sgd, matched"] - 1) < 0.1)
assert all_steps["SGD, no decay"][0] > 2 * all_steps["SGD, no decay"][2]
for name in ("rotational, matched", "psi_sgd, matched"):
    norms = runs[name][1]["hidden_0"]["norm"]
    assert np.allclose(norms, norms[:, :1], rtol=1e-5)  # They are kept.

# %% [markdown]
# ## Monitor your own training
#
# `monitor_groups` is the last transform of a chain. `read_monitor` returns
# numbers for a logger from its state, and `plot_monitor` plots them.

# %%
tx = optax.chain(
    decayed_sgd(RATE, DECAY), psi_optax.diagnostics.monitor_groups(groups)
)


@jax.jit
def train_step(params, state, index, labels):
    gradients = jax.grad(loss_of)(params, x_train[index], labels)
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state


params, state, history = start, tx.init(start), []
for index in range(50 if SMOKE else 500):
    params, state = train_step(params, state, chosen[index], labels[index])
    if index % 5 == 4:
        history.append(psi_optax.diagnostics.read_monitor(state))
print({name: round(value, 4) for name, value in history[-1].items()})

# %%
figure = psi_optax.diagnostics.plot_monitor(history)
figure.set_size_inches(7, 6)
figure
