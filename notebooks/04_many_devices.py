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
# # Training on a TPU or several devices
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/psi-optax/psi_optax/blob/main/notebooks/04_many_devices.ipynb)
#
# The norm of a filter is a sum, and a filter may be spread over devices. Under
# `jax.jit` nothing has to be said about that: here one network is trained on
# all devices, with weights that are copied to each of them, and with weights of
# which each device holds a part. The losses are those of one device; then we
# look at what the optimizer sends. On TPUs or GPUs all of them are used; where
# there is only a CPU, it plays eight devices.

# %%
import os

# Before JAX looks for devices. Eight that wait for each other need a thread
# each, however few cores there are. GPUs and TPUs do not care for either.
os.environ.setdefault("NPROC", "32")

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

# For a CPU alone, too. Before JAX looks for devices.
jax.config.update("jax_num_cpu_devices", 8)
print(
    f"Python {sys.version.split()[0]}, JAX {jax.__version__}, {jax.devices()}"
)

# %%
import collections
import math
import pathlib
import re
import tempfile

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import orbax.checkpoint as ocp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sklearn.datasets import load_digits

import psi_optax

# The tests run this notebook with fewer steps.
SMOKE = bool(os.environ.get("PSI_OPTAX_SMOKE"))
jax.config.update("jax_disable_most_optimizations", SMOKE)
STEPS = 20 if SMOKE else 100
# TPUs, and some GPUs, multiply float32 numbers in less than float32. We are
# going to compare runs, and want to see nothing but the order of sums.
jax.config.update("jax_default_matmul_precision", "highest")

devices = jax.devices()
mesh = jax.make_mesh((len(devices),), ("d",), axis_types=(AxisType.Auto,))
print(mesh)

# %% [markdown]
# ## A network and its groups
#
# Two hidden layers whose outputs are normalized over the batch. Its columns are
# the scale groups.


# %%
WIDTH = 128


def new_params():
    random = np.random.default_rng(0)

    def kernel(fan_in, fan_out):
        w = random.normal(size=(fan_in, fan_out)) / np.sqrt(fan_in)
        return jnp.asarray(w, jnp.float32)

    return {
        "hidden_0": kernel(64, WIDTH),
        "hidden_1": kernel(WIDTH, WIDTH),
        "head": kernel(WIDTH, 10),
    }


def loss_of(params, x, y):
    for layer in ("hidden_0", "hidden_1"):
        x = jax.nn.relu(jax.nn.standardize(x @ params[layer], axis=0))
    return optax.softmax_cross_entropy_with_integer_labels(
        x @ params["head"], y
    ).mean()


# Axes of these lengths can be cut into as many parts as there are devices.
WIDTH = len(devices) * max(1, 128 // len(devices))
digits = load_digits()
count = len(digits.data) // len(devices) * len(devices)
images = jnp.asarray(digits.data[:count] / 16, jnp.float32)
labels = jnp.asarray(digits.target[:count], jnp.int32)
report = psi_optax.find_groups(
    loss_of, new_params(), images, labels, method="analysis"
)
print(report)


def new_optimizer(rate=0.1):
    return psi_optax.psi_sgd(rate, report, momentum=0.9)


# %% [markdown]
# ## Where the weights are
#
# Examples are always shared out among the devices. Weights are copied to all of
# them (data parallel), or cut along an axis: along the outputs, where each
# device has whole filters; or along the inputs, where each has a piece of every
# filter. The state of the optimizer goes where the weights are, momentum and
# radius alike.


# %%
def place(tree, mesh, axis):
    """Cuts arrays along an axis, if it can be; copies all others."""

    def put(x):
        spec = [None] * x.ndim
        if axis is not None and x.shape[axis] % mesh.size == 0:
            spec[axis] = "d"
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))

    return jax.tree.map(put, tree)


def start(tx, mesh, axis):
    """Weights and state; a counter is on one device and has to be copied."""
    params = place(new_params(), mesh, axis)
    everywhere = NamedSharding(mesh, PartitionSpec())
    state = jax.tree.map(
        lambda x: x if x.ndim else jax.device_put(x, everywhere),
        tx.init(params),
    )
    return params, state


def shardings_of(tree):
    return jax.tree.map(lambda x: x.sharding, tree)


LAYOUTS = {"copies": None, "cut along outputs": 1, "cut along inputs": 0}
for name, axis in LAYOUTS.items():
    params, state = start(new_optimizer(), mesh, axis)
    found = shardings_of(state.radius["hidden_1"]).spec
    print(f"{name}: {params['hidden_1'].sharding.spec}, the radius {found}")
    jax.debug.visualize_array_sharding(params["hidden_1"])

# %% [markdown]
# ## Training
#
# An ordinary step. Before it multiplies by weights that are cut, each device
# gathers them; the gradient goes back to where its part is needed. The compiler
# is told to leave weights and state where they are.


# %%
def compile_step(tx, mesh, params, state, batch):
    whole = NamedSharding(mesh, PartitionSpec())

    def step(params, state, x, y):
        def gathered_loss(params):
            gathered = jax.lax.with_sharding_constraint(params, whole)
            return loss_of(gathered, x, y)

        loss, gradients = jax.value_and_grad(gathered_loss)(params)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    kept = *shardings_of((params, state)), whole
    return (
        jax.jit(step, out_shardings=kept).lower(params, state, *batch).compile()
    )


def train(mesh, axis=None, rate=0.1):
    """The losses, the last weights and state, and the step that was used."""
    tx = new_optimizer(rate)
    params, state = start(tx, mesh, axis)
    batch = jax.device_put(
        (images, labels), NamedSharding(mesh, PartitionSpec("d"))
    )
    step = compile_step(tx, mesh, params, state, batch)
    losses = []
    for _ in range(STEPS):
        params, state, loss = step(params, state, *batch)
        losses.append(float(loss))
    return np.array(losses), params, state, step


one = jax.make_mesh(
    (1,), ("d",), axis_types=(AxisType.Auto,), devices=devices[:1]
)
expected = train(one)[0]
runs = {name: train(mesh, axis) for name, axis in LAYOUTS.items()}

# %% [markdown]
# Sums over examples and over inputs are formed in another order, so runs differ
# by rounding, which training lets grow. Beside it, for comparison, one device
# with a learning rate that is 1 % larger.

# %%
other = train(one, rate=0.101)[0]
differences = {
    name: np.abs(run[0] / expected - 1) for name, run in runs.items()
}
differences["one device, rate 1 % larger"] = np.abs(other / expected - 1)

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.5))
left.semilogy(expected, "k--", label="one device", zorder=3)
for name, run in runs.items():
    left.semilogy(run[0], lw=3, alpha=0.5, label=name)
for name, difference in differences.items():
    right.semilogy(np.maximum(difference, 1e-9), label=name)
left.set(xlabel="step", title="loss")
right.set(xlabel="step", title="relative difference to one device")
for panel in (left, right):
    panel.legend(fontsize=8)
figure.tight_layout()

furthest = {name: x.max() for name, x in differences.items()}
for name, difference in furthest.items():
    print(f"{name}: at most {difference:.1e}")
control = furthest.pop("one device, rate 1 % larger")
assert max(furthest.values()) < control / 10

# %% [markdown]
# ## What the optimizer sends
#
# The compiled program tells: how many numbers the update sends by itself, then
# the whole step, with its gradients and weights. Where filters are cut in
# pieces, the update has to add up |w|², ⟨w, d⟩ and |d|² over the devices, for
# each filter and the step d that it takes. It sends these sums and no weights,
# so this does not grow with the number of weights in a filter.

# %%
COLLECTIVE = re.compile(
    r"= (\(.*?\)|\S+) (all-reduce|all-gather|all-to-all|reduce-scatter"
    r"|collective-permute|collective-broadcast)(?:-start)?\("
)


def sent(compiled):
    """How many numbers go through each kind of communication."""
    numbers = collections.Counter()
    for shapes, kind in COLLECTIVE.findall(compiled.as_text()):
        for shape in re.findall(r"\w+\[([\d,]*)\]", shapes):
            numbers[kind] += math.prod(int(n) for n in shape.split(",") if n)
    return numbers


def update_alone(params, state):
    """The compiled update, given gradients where the weights are."""

    def update(gradients, state, params):
        updates, state = new_optimizer().update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    kept = shardings_of((params, state))
    return (
        jax.jit(update, out_shardings=kept)
        .lower(params, state, params)
        .compile()
    )


weights = sum(x.size for x in jax.tree.leaves(new_params()))
print(f"{weights:,} weights in {2 * WIDTH} filters and a head")
update_sends = {}
for name, (_, params, state, step) in runs.items():
    update_sends[name] = sent(update_alone(params, state))
    print(f"{name}: update {dict(update_sends[name])}, step {dict(sent(step))}")

filters = 2 * WIDTH
sums = 3  # |w|², ⟨w, d⟩ and |d|².
assert not update_sends["copies"]
assert not update_sends["cut along outputs"]
assert set(update_sends["cut along inputs"]) <= {"all-reduce"}
assert update_sends["cut along inputs"].total() <= sums * filters

# %% [markdown]
# ## Checkpoints
#
# A run that was cut along the inputs goes on cut along the outputs, or on
# another number of devices: the checkpoint is restored into arrays like those
# of a new start.

# %%
_, params, state, _ = runs["cut along inputs"]
tx = new_optimizer()
wanted = start(tx, mesh, LAYOUTS["cut along outputs"])
with (
    tempfile.TemporaryDirectory() as folder,
    ocp.StandardCheckpointer() as checkpointer,
):
    path = pathlib.Path(folder) / "step"
    checkpointer.save(path, (params, state))
    checkpointer.wait_until_finished()
    restored = checkpointer.restore(
        path, jax.tree.map(ocp.utils.to_shape_dtype_struct, wanted)
    )

assert jax.tree.all(
    jax.tree.map(
        np.array_equal, *map(jax.device_get, (restored, (params, state)))
    )
)
assert shardings_of(restored) == shardings_of(wanted)
_, _, _, step = runs["cut along outputs"]
batch = jax.device_put(
    (images, labels), NamedSharding(mesh, PartitionSpec("d"))
)
*_, loss = step(*restored, *batch)
print(f"the last loss was {runs['cut along inputs'][0][-1]:.6f},", end=" ")
print(f"the next one is {loss:.6f}")
jax.debug.visualize_array_sharding(restored[0]["hidden_1"])
