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
# Under `jax.jit` the optimizers of `psi_optax` work with any sharding of the
# weights: the norm of a filter is a sum, which the compiler reduces over
# devices if they hold parts of the filter. You will see
#
# 1. one network trained with weights that are replicated, sharded along the
#    outputs and sharded along the inputs: the losses are those of one device,
#    up to rounding;
# 2. the numbers that an update communicates: none, unless filters are sharded,
#    and then at most three per filter;
# 3. a checkpoint that is restored to another sharding.
#
# On Colab choose a CPU runtime, which simulates eight devices: the notebook
# takes about half a minute on two CPU cores. On a TPU or on GPUs it uses all of
# them.

# %%
import os

# Set before JAX is initialized. Eight virtual devices that wait for each other
# need a thread each. GPUs and TPUs ignore it.
_ = os.environ.setdefault("NPROC", "32")

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

# Set before JAX is initialized, for runtimes with a CPU only.
jax.config.update("jax_num_cpu_devices", 8)
devices = jax.devices()
print(
    f"Python {sys.version.split()[0]}, JAX {jax.__version__},"
    f" {len(devices)} x {devices[0].device_kind}"
)

# %%
# %matplotlib inline
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

plt.style.use("tableau-colorblind10")
# The tests set PSI_OPTAX_SMOKE for a short run.
SMOKE = bool(os.environ.get("PSI_OPTAX_SMOKE"))
if SMOKE:
    print("A short run: its numbers are not those of the text.")
    jax.config.update("jax_disable_most_optimizations", True)
STEPS = 20 if SMOKE else 100
# By default TPUs and some GPUs multiply float32 numbers in a lower precision.
# With the highest, runs differ only by the order of sums.
jax.config.update("jax_default_matmul_precision", "highest")

mesh = jax.make_mesh((len(devices),), ("d",), axis_types=(AxisType.Auto,))
print(mesh)

# %% [markdown]
# ## A network and its groups
#
# Two hidden layers whose outputs are normalized over the batch. The columns of
# their kernels are scale groups.


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


# Lengths of axes that the number of devices divides.
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
# ## Shardings
#
# Examples are always sharded over the devices. Weights are replicated (data
# parallel) or sharded along one axis. If it is that of the outputs, a device
# holds whole filters; if it is that of the inputs, it holds a part of each
# filter. The momentum is sharded like the weights, and the radius, one number
# for each filter, like the outputs.


# %%
def place(tree, mesh, axis):
    """Shard arrays along an axis, if possible; replicate the others."""

    def put(x):
        spec = [None] * x.ndim
        if axis is not None and x.shape[axis] % mesh.size == 0:
            spec[axis] = "d"
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))

    return jax.tree.map(put, tree)


def start(tx, mesh, axis):
    """Return weights and state; counters have to be replicated."""
    params = place(new_params(), mesh, axis)
    everywhere = NamedSharding(mesh, PartitionSpec())
    state = jax.tree.map(
        lambda x: x if x.ndim else jax.device_put(x, everywhere),
        tx.init(params),
    )
    return params, state


def shardings_of(tree):
    return jax.tree.map(lambda x: x.sharding, tree)


LAYOUTS = {"replicated": None, "outputs sharded": 1, "inputs sharded": 0}
for name, axis in LAYOUTS.items():
    params, state = start(new_optimizer(), mesh, axis)
    arrays = params["hidden_1"], state.radius["hidden_1"]
    weights, radius = (x.addressable_shards[0].data.shape for x in arrays)
    print(
        f"{name}: a device holds {weights} of {arrays[0].shape} weights,",
        end="",
    )
    print(f" {radius} of {arrays[1].shape} radii")

# %% [markdown]
# ## Training
#
# Each device gathers sharded weights before it multiplies by them. The output
# shardings of the step are those of the weights and the state.


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
    """Return the losses, the last weights and state, and the step."""
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
# Sums over examples and inputs have another order, so runs differ by rounding.
# The control is one device with a learning rate that is 1 % larger.

# %%
other = train(one, rate=0.101)[0]
differences = {
    name: np.abs(run[0] / expected - 1) for name, run in runs.items()
}
differences["learning rate 1 % larger"] = np.abs(other / expected - 1)

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
control = furthest.pop("learning rate 1 % larger")
assert max(furthest.values()) < control / 10

# %% [markdown]
# ## Communication of the optimizer
#
# The compiled program lists its collectives: how many numbers the update alone
# communicates, and how many the whole step, with gradients and weights. If
# filters are sharded, the update sums |w|², ⟨w, d⟩ and |d|² over devices, for
# each filter w and its step d. It communicates no weights, so this cost does
# not grow with the number of weights in a filter.

# %%
COLLECTIVE = re.compile(
    r"= (\(.*?\)|\S+) (all-reduce|all-gather|all-to-all|reduce-scatter"
    r"|collective-permute|collective-broadcast)(?:-start)?\("
)


def communicated(compiled):
    """Count the numbers that each kind of collective communicates."""
    numbers = collections.Counter()
    for shapes, kind in COLLECTIVE.findall(compiled.as_text()):
        for shape in re.findall(r"\w+\[([\d,]*)\]", shapes):
            numbers[kind] += math.prod(int(n) for n in shape.split(",") if n)
    return numbers


def update_alone(params, state):
    """Compile the update, for gradients sharded like the weights."""

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
in_update = {}
for name, (_, params, state, step) in runs.items():
    in_update[name] = communicated(update_alone(params, state))
    in_step = dict(communicated(step))
    print(f"{name}: update {dict(in_update[name])}, step {in_step}")

filters = 2 * WIDTH
sums = 3  # |w|², ⟨w, d⟩ and |d|².
assert not in_update["replicated"]
assert not in_update["outputs sharded"]
assert set(in_update["inputs sharded"]) <= {"all-reduce"}
assert in_update["inputs sharded"].total() <= sums * filters

# %% [markdown]
# ## Checkpoints
#
# A checkpoint of one sharding is restored to another, or to another number of
# devices: Orbax takes the shardings of freshly initialized weights and state.

# %%
_, params, state, _ = runs["inputs sharded"]
tx = new_optimizer()
wanted = start(tx, mesh, LAYOUTS["outputs sharded"])
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
_, _, _, step = runs["outputs sharded"]
batch = jax.device_put(
    (images, labels), NamedSharding(mesh, PartitionSpec("d"))
)
*_, loss = step(*restored, *batch)
print(f"the last loss was {runs['inputs sharded'][0][-1]:.6f},", end=" ")
print(f"the next one is {loss:.6f}")
