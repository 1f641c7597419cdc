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
# # What weight decay really does
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/psi-optax/psi_optax/blob/main/notebooks/03_what_weight_decay_really_does.ipynb)
#
# A filter in front of BatchNorm has no scale, so weight decay cannot make it
# small in any sense that the loss could see. What it does is set the angle by
# which the filter turns at every step. Here we measure that angle and the
# length that goes with it, compare them with their formulas, and then turn
# filters at the same pace without any decay. CPU, GPU or TPU: nothing needs to
# be edited.

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
import functools
import os

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import psi_optax

# The tests run this notebook with fewer steps and fewer runs.
SMOKE = bool(os.environ.get("PSI_OPTAX_SMOKE"))
STEPS = 2000 if SMOKE else 4000
SETTLED = slice(STEPS // 2, None)
BATCH, WIDTH = 64, 32

# %% [markdown]
# ## A small network, looked at closely
#
# Digits of 8 by 8 pixels, and two hidden layers whose outputs are normalized
# over the batch, as BatchNorm does in training. A fifth of the labels is drawn
# at random, anew for each batch, so that there is always something to learn and
# gradients do not vanish.

# %%
digits = load_digits()
# A pixel that never changes has a gradient of nothing but rounding, which Adam
# would divide by its own size.
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
    """Weights; the hidden filters `scale` times as long as usual."""
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


# Which examples are in the batch of each step, and their labels.
random = np.random.default_rng(1)
chosen = random.integers(len(x_train), size=(STEPS, BATCH))
labels = np.where(
    random.uniform(size=chosen.shape) < 0.2,
    random.integers(10, size=chosen.shape),
    y_train[chosen],
)
batches = jnp.asarray(chosen), jnp.asarray(labels)


def train_one(build, settings, params):
    """Trains with `build(*settings)`.

    Returns the accuracy on the test part, and what each filter did at every
    step: its norm, its rotation, and its gradient's norm in direction space.
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
    # The test part is normalized as one batch.
    right = jnp.argmax(logits_of(params, x_test), axis=-1) == y_test
    return right.mean(), seen


@functools.partial(jax.jit, static_argnums=0)
def train_all(build, settings, starts):
    return jax.vmap(functools.partial(train_one, build))(settings, starts)


def train(build, *settings, scales):
    """Several runs at once, each from filters of another length."""
    starts = jax.tree.map(lambda *x: jnp.stack(x), *map(new_params, scales))
    settings = [jnp.full(len(scales), x, jnp.float32) for x in settings]
    return jax.device_get(train_all(build, settings, starts))


def rms(x, axis=None):
    return np.sqrt(np.mean(np.square(x, dtype=np.float64), axis=axis))


# %% [markdown]
# ## Three starts, one end
#
# SGD with weight decay, from filters of usual length, and three times shorter
# and longer. Dashed: what `equilibrium_transient` and `equilibrium_rotation`
# say, given how long gradients are in direction space.

# %%
RATE, DECAY, MOMENTUM = 0.05, 0.01, 0.9


def decayed_sgd(rate, decay):
    return optax.chain(
        optax.add_decayed_weights(decay, decayed),
        optax.sgd(rate, momentum=MOMENTUM),
    )


SCALES = [1 / 3, 1.0, 3.0]
COLOURS = ["tab:blue", "tab:green", "tab:red"]
accuracies, seen = train(decayed_sgd, RATE, DECAY, scales=SCALES)


def show(run, transients, rotation):
    """The first layer's norms and rotations, and what is predicted of them."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.5))
    turned = rms(run["rotation"], -1)
    for index, colour in enumerate(COLOURS):
        label = f"filters times {SCALES[index]:.2g}"
        left.plot(run["norm"][index].mean(-1), color=colour, label=label)
        left.plot(transients[index].mean(-1), "--", color=colour)
        right.plot(turned[index], color=colour, lw=0.7)
    right.axhline(rotation, color="black", ls="--", label="equilibrium")
    left.set(title="norm (mean of filters)", xlabel="step")
    right.set(title="rotation, radians a step (RMS)", xlabel="step")
    for panel in (left, right):
        panel.set(xscale="log", yscale="log")
        panel.legend(fontsize=8)
    figure.tight_layout()


steps = np.arange(STEPS)[:, None]
sgd = {"learning_rate": RATE, "weight_decay": DECAY, "momentum": MOMENTUM}
sgd_angle = float(psi_optax.dynamics.equilibrium_rotation(**sgd))
# Of every run and every filter, once it has settled.
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
# Wherever they start, filters end at one length and turn by one angle. The
# angle depends on the rate, the decay and the momentum alone, √(2ηλ/(1+μ));
# the length is that at which gradients turn them so.


# %%
def compare(seen, rotation, norms):
    """Measured over predicted, of both layers and from every start."""
    found = {
        layer: (
            rms(run["rotation"][:, SETTLED], (1, 2)) / rotation,
            np.mean(run["norm"][:, SETTLED] / norms[layer], (1, 2)),
        )
        for layer, run in seen.items()
    }
    for layer, (turned, norm) in found.items():
        print(f"{layer}, measured over predicted, from the three starts:")
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
# ## Only the product counts
#
# Pairs of rates and decays. Each point is a training: along the line, the angle
# is the one that is predicted from the product, whatever the rate is by itself.

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
    # Rings, as points of one product lie upon each other.
    look = {"marker": "o", "ms": 6 + 4 * index, "mfc": "none"}
    found = measured[:, index]
    left.loglog(decays, found, **look, label=f"rate {rate:g}")
    right.loglog(predicted[:, index], found, **look, ls="none")
ends = [predicted.min(), predicted.max()]
right.loglog(ends, ends, color="black", ls="--", lw=0.8)
left.set(xlabel="weight decay", ylabel="rotation, radians a step")
right.set(xlabel="predicted rotation")
left.legend()
figure.tight_layout()
print("measured over predicted:")
print((measured / predicted).round(3))
assert np.all(np.abs(measured / predicted - 1) < 0.05)

# %% [markdown]
# ## AdamW
#
# AdamW settles too, at √(2ηλ(1-β₁)/(1+β₁)) and at a length that follows from
# the number of weights in a filter. The formulas are for gradients that are
# noise of one size in all directions. Those behind a ReLU are not quite: the
# second layer is longer, and turns less, than they say.

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
# ## The same pace without decay
#
# So decay sets an angle, in the end. A method that keeps norms can be given the
# angle at once: `matching_learning_rate` makes its rate of the rate and the
# decay. `rotational` needs no more. The steps of `psi_sgd` are as long as
# gradients are, so it has to be told their norm, which pilots find: each
# corrects the guess by how far the filters turned.

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
    print(f"turned {turned / sgd_angle:.3f} of what is wanted")

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
            color=COLOURS[index],
            label=f"filters times {scale:.2g}",
            lw=0.7,
        )
    panel.axhline(sgd_angle, color="black", ls="--")
    panel.set(title=name, xlabel="step")
panels[0].set_ylabel("rotation, radians a step")
panels[0].legend(fontsize=7)
figure.tight_layout()


def pace(run, part=slice(None)):
    """The rotation of both layers over the predicted one, of each run."""
    turned = [run[layer]["rotation"][:, part] for layer in layers]
    return rms(turned, (0, 2, 3)) / sgd_angle


print(f"{'':20}  RMS rotation over predicted, and test accuracy")
for name, (right, run) in runs.items():
    turned = pace(run)
    cells = [f"{t:6.2f} {a:6.3f}" for t, a in zip(turned, right, strict=True)]
    print(f"{name:20}", " |".join(cells))

# %% [markdown]
# Without decay the length at the start decides for good: short filters turn
# fast and grow, long ones hardly turn. `rotational` turns at the pace of the
# equilibrium from the first step on, and `psi_sgd` does on average: faster
# while gradients are large, and in layers where they are.
#
# Accuracy is another matter. All rates are constant here, and the more filters
# turn, the more noise is left in the end: without decay, where rotation dies
# away, accuracy is higher. Whichever the method, let the rate fall.

# %%
early, all_steps = (
    {name: pace(run, part) for name, (_, run) in runs.items()}
    for part in (slice(100), slice(None))
)
for name, quotients in early.items():
    print(f"{name}, first 100 steps: {quotients.round(2)} of the equilibrium")
assert np.all(np.abs(early["rotational, matched"] - 1) < 0.1)
assert np.all(np.abs(all_steps["rotational, matched"] - 1) < 0.1)
assert np.all(np.abs(all_steps["psi_sgd, matched"] - 1) < 0.1)
assert all_steps["SGD, no decay"][0] > 2 * all_steps["SGD, no decay"][2]
for name in ("rotational, matched", "psi_sgd, matched"):
    norms = runs[name][1]["hidden_0"]["norm"]
    assert np.allclose(norms, norms[:, :1], rtol=1e-5)  # They are kept.

# %% [markdown]
# ## Watch it in a training of your own
#
# `monitor_groups` goes last in a chain; `read_monitor` makes numbers for a
# logger of its state, `plot_monitor` a picture.

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
    history.append(psi_optax.diagnostics.read_monitor(state))
print({name: round(value, 4) for name, value in history[-1].items()})

# %%
psi_optax.diagnostics.plot_monitor(history)
