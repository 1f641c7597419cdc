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
# # What the loss looks like
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/psi-optax/psi_optax/blob/main/notebooks/06_what_the_loss_looks_like.ipynb)
#
# `psi_optax.landscape` measures curvature, stability and shape of a loss in
# units that do not depend on the scale of filters. Each cell compares a measure
# with its closed form, or tries a claim about it. CPU, GPU or TPU: nothing
# needs to be edited.

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
import itertools
import os

import jax.flatten_util
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

import psi_optax
from psi_optax import ScaleGroup, landscape

# The tests run this notebook with fewer steps.
SMOKE = bool(os.environ.get("PSI_OPTAX_SMOKE"))
jax.config.update("jax_disable_most_optimizations", SMOKE)
# TPUs, and some GPUs, multiply float32 numbers in less than float32. Identities
# are asserted to the rounding of float32.
jax.config.update("jax_default_matmul_precision", "highest")

# %% [markdown]
# ## A network
#
# 200 digits, two tanh layers with BatchNorm, square loss. The columns of both
# kernels are scale groups. The head is ordinary.

# %%
digits = load_digits()
images = jnp.asarray(digits.data / 16, jnp.float32)
labels = jnp.asarray(digits.target, jnp.int32)
x, targets = images[:200], jax.nn.one_hot(labels[:200], 10)


def normal(seed, *shape):
    w = np.random.default_rng(seed).normal(size=shape) / np.sqrt(shape[0])
    return jnp.asarray(w, jnp.float32)


def new_params(seed=0):
    kernels = normal(seed, 64, 24), normal(seed + 1, 24, 24)
    head = 0.1 * normal(seed + 2, 24, 10)
    return {"first": kernels[0], "second": kernels[1], "head": head}


groups = {"first": ScaleGroup(0), "second": ScaleGroup(0), "head": None}


# %%
def network(params, x, statistics=(None, None)):
    """The outputs, and the mean and variance of each BatchNorm."""
    used = []
    for name, fixed in zip(("first", "second"), statistics, strict=True):
        z = x @ params[name]
        mean, variance = fixed or (z.mean(0), z.var(0))
        x = jnp.tanh((z - mean) * jax.lax.rsqrt(variance))
        used.append((mean, variance))
    return x @ params["head"], used


def loss_fn(params):
    errors = network(params, x)[0] - targets
    return 0.5 * jnp.mean(jnp.sum(errors**2, axis=1))


# %% [markdown]
# ## The idea
#
# A measure of the loss around weights is a measure of a function of a step.
# With the steps of filters in radians, and without a radial part, no measure
# depends on scale. If each filter is multiplied by a power of two, the plain
# top eigenvalue of the Hessian changes by orders of magnitude. In radians it
# keeps all bits.


# %%
def top(groups, **options):
    """A function that measures the top eigenvalue."""

    @jax.jit
    def pairs(params, start):
        curvature = landscape.hessian(loss_fn, params, groups=groups)
        return landscape.eigenpairs(curvature, start, **options)

    return pairs


sharpness = top(groups, num_matvecs=16)
params, key = new_params(), jax.random.key(0)
powers = 2.0 ** np.random.default_rng(0).integers(-6, 7, 24)
rescaled = params | {"first": params["first"] * jnp.float32(powers)}

# %%
plain = top(None, num_matvecs=16)
for name, measure in {"plain": plain, "in radians": sharpness}.items():
    before, after = (measure(p, key).values[0] for p in (params, rescaled))
    print(f"{name:11} {before:8.3f} -> {after:.3f}")
assert after == before
assert plain(rescaled, key).values[0] > 10 * plain(params, key).values[0]

# %% [markdown]
# ## The edge of stability
#
# Under gradient descent the top eigenvalue rises to the threshold of stability,
# 2/η, and stays there. So it does under `psi_sgd`, in radians. At a lower
# learning rate the threshold is not reached, and no step raises the loss. Each
# measurement starts from the last one. ([Cohen et al.](https://arxiv.org/abs/2103.00065))


# %%
@functools.partial(jax.jit, static_argnums=(0, 1, 3))
def descend(loss_of, tx, carry, steps, args=()):
    """Trains (params, state); returns them and the losses."""

    def step(carry, args):
        params, state = carry
        loss, gradient = jax.value_and_grad(loss_of)(params, *args)
        updates, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), loss

    return jax.lax.scan(step, carry, args, length=steps)


# %%
def follow(rate):
    """Trains; returns the weights, ratios to the threshold, and losses."""
    tx = psi_optax.psi_sgd(rate, groups)
    carry, pairs, ratios, losses = (params, tx.init(params)), key, [], []
    for _ in range(10 if SMOKE else 30):
        carry, part = descend(loss_fn, tx, carry, 100)
        pairs = sharpness(carry[0], pairs)
        ratios.append(pairs.values[0] / landscape.stability_threshold(rate))
        losses.append(part)
    return carry[0], np.array(ratios), np.concatenate(losses)


runs = {rate: follow(rate) for rate in (0.05, 0.3)}
trained = runs[0.3][0]

# %%
for rate, (_, ratios, losses) in runs.items():
    raised = np.mean(np.diff(losses) > 1e-6)
    print(f"rate {rate}: ratio {ratios[-1]:.3f}, {raised:.0%} raise the loss")
# The eigenvalue oscillates about the edge: 5 % covers what was seen, 2.4 %.
assert np.all(np.abs(runs[0.3][1][-3:] - 1) < 0.05)
assert np.all(runs[0.05][1] < 0.9)
assert np.all(np.diff(runs[0.05][2]) <= 1e-6)  # Rounding of a loss near 1.
landscape.plot_edge(runs[0.3][1] * 2 / 0.3, 2 / 0.3)

# %% [markdown]
# ## Surfaces
#
# The loss along two filter-normalized directions ([Li et al.](https://arxiv.org/abs/1712.09913)).
# Rescaled filters have the same surface, to the last bit.

# %%
space = landscape.tangent_space(trained, groups)
directions = [
    space.random(k, filter_normalized=True) for k in jax.random.split(key)
]
steps = jnp.linspace(-1, 1, 7 if SMOKE else 25)


@jax.jit
def surface(params, directions):
    along = {"directions": directions, "steps": steps, "groups": groups}
    return landscape.loss_surface(loss_fn, params, **along)


def rescale(params):
    return params | {"first": params["first"] * jnp.float32(powers)}


# %%
losses = surface(trained, directions)
assert jnp.all(surface(rescale(trained), directions) == losses)
# The control: without groups the same directions move short filters further.
plain_surface = functools.partial(
    landscape.loss_surface, loss_fn, directions=directions[:1], steps=[0.5]
)
assert not jnp.allclose(
    plain_surface(trained), plain_surface(rescale(trained)), rtol=0.01
)
landscape.plot_surface(losses, steps)

# %% [markdown]
# Between two solutions, the straight line depends on their scales. The geodesic
# of each filter does not.

# %%
tx = psi_optax.psi_sgd(0.3, groups)
other = new_params(seed=10)
(other, _), _ = descend(loss_fn, tx, (other, tx.init(other)), 500)
times = jnp.linspace(0, 1, 11)


def barrier(end, groups):
    path = landscape.geodesic(trained, end, groups)
    losses = jax.lax.map(lambda t: loss_fn(path(t)), times)
    return jnp.max(losses - (1 - times) * losses[0] - times * losses[-1])


# %%
lines = {"line": None, "geodesic": groups}
barriers = {
    name: [barrier(end, g) for end in (other, rescale(other))]
    for name, g in lines.items()
}
for name, (before, after) in barriers.items():
    print(f"barrier of the {name}: {before:.4f}, after rescaling {after:.4f}")
# Norms pass through exp and log: some roundings.
assert np.isclose(*barriers["geodesic"], rtol=1e-4)
assert not np.isclose(*barriers["line"], rtol=1e-2)


# %% [markdown]
# ## Densities before and after training
#
# Training leaves most eigenvalues near zero, and some large ones. The mean of
# the density times the dimension is the trace, which random probes estimate,
# too. ([Ghorbani et al.](https://arxiv.org/abs/1901.10159))


# %%
@jax.jit
def spectrum(params):
    curvature = landscape.hessian(loss_fn, params, groups=groups)
    density = landscape.spectral_density(curvature, key, num_matvecs=48)
    return density, landscape.trace(curvature, jax.random.key(1))


# %%
for name, weights in {"before": params, "after": trained}.items():
    density, trace = spectrum(weights)
    values, mass = np.asarray(density.values), np.asarray(density.weights)
    near_zero = mass[np.abs(values) < 0.05 * values.max()].sum() / len(mass)
    print(f"{name}: top {values.max():.2f}, trace {trace.value:.1f}", end=", ")
    print(f"{near_zero:.0%} smaller than 5 % of the top")
    sums = density.size * (values * mass).sum(1)
    error = np.hypot(trace.error, sums.std(ddof=1) / 2)  # Of 4 probes.
    assert np.allclose(mass.sum(1), 1, atol=1e-4)
    assert abs(sums.mean() - trace.value) < 5 * error
landscape.plot_spectrum(density)

# %% [markdown]
# ## A learning rate and a momentum from curvature
#
# On a quadratic loss with eigenvalues from m to L the best momentum method has
# η = (2/(√L + √m))² and μ = ((√L - √m)/(√L + √m))², and converges like √μ per
# step. Lanczos measures L and m.

# %%
static = ("groups", "nesterov", "ordinary", "radius", "retraction")
tunable = optax.inject_hyperparams(psi_optax.psi_sgd, static_args=static)


def coefficients(pairs):
    """The rate and the momentum, for sizes above 1e-3 of the largest."""
    size = jnp.where(jnp.isfinite(pairs.residuals), jnp.abs(pairs.values), 0)
    large, small = size.max(), jnp.maximum(size[-1], 1e-3 * size.max())
    a, b = jnp.sqrt(large), jnp.sqrt(small)
    return {
        "learning_rate": (2 / (a + b)) ** 2,
        "momentum": ((a - b) / (a + b)) ** 2,
    }


# %%
def measured_by(loss_of, groups, num_matvecs):
    """A function from weights to coefficients."""

    @jax.jit
    def measure(params):
        curvature = landscape.hessian(loss_of, params, groups=groups)
        options = {"num_smallest": 1, "num_matvecs": num_matvecs}
        return coefficients(landscape.eigenpairs(curvature, key, **options))

    return measure


def learn(loss_of, tx, params, measure, steps, period=5):
    """Trains with coefficients that are measured every `period` steps."""
    carry, losses = (params, tx.init(params)), []
    for _ in range(steps // period):
        carry[1].hyperparams.update(measure(carry[0]))
        carry, part = descend(loss_of, tx, carry, period)
        losses.append(part)
    return carry[1].hyperparams, np.concatenate(losses)


# %%
eigenvalues = jnp.linspace(1, 100, 20)


def quadratic(w):
    return 0.5 * jnp.sum(eigenvalues * w**2)


tx = tunable(learning_rate=0.1, momentum=0.9, groups=None)
measure = measured_by(quadratic, None, 20)
chosen, losses = learn(quadratic, tx, jnp.ones(20), measure, 60)
pace = (losses[50] / losses[20]) ** (1 / 60)  # The loss is of degree 2.
print({name: round(float(value), 4) for name, value in chosen.items()}, pace)
assert np.isclose(chosen["learning_rate"], (2 / 11) ** 2, rtol=1e-3)
assert np.isclose(chosen["momentum"], (9 / 11) ** 2, rtol=1e-3)
# A double root: the weights are like t √μ^t for large t.
assert np.isclose(pace, 9 / 11 * (50 / 20) ** (1 / 30), rtol=0.01)

# %% [markdown]
# The claim is that it beats tuned constants on a network. Against this grid of
# them it does, per step. Its 16 products every 5 steps cost as much as 8
# gradients per step. NaN is a run that diverged. Single losses oscillate at the
# edge of stability, so that the median of the last 50 is compared.

# %%
tx = tunable(learning_rate=0.1, momentum=0.9, groups=groups)
steps, grid = 200 if SMOKE else 1000, {}
measure = measured_by(loss_fn, groups, 16)
learned = np.median(learn(loss_fn, tx, params, measure, steps)[1][-50:])
for rate in (0.03, 0.1) if SMOKE else (0.03, 0.1, 0.3, 1.0):
    for momentum in (0.0, 0.9):
        fixed = {"learning_rate": rate, "momentum": momentum}
        fixed = {name: jnp.float32(value) for name, value in fixed.items()}
        constant = learn(loss_fn, tx, params, lambda _, c=fixed: c, steps)[1]
        grid[rate, momentum] = np.median(constant[-50:])
print(f"learned: {learned:.2e}, constants:")
print({name: f"{loss:.2e}" for name, loss in grid.items()})
assert learned < np.nanmin(list(grid.values()))

# %% [markdown]
# ## BatchNorm as a ridge that tunes itself
#
# A linear neuron with BatchNorm of constant scale γ is a ridge regression: its
# weights solve (1 + κ)(S + s²I)u = c, with the covariance S of
# the inputs, their noise s, and c their covariance with the targets. The
# multiplier κ is -(dL/dγ)/γ, a gradient that BatchNorm already has. The claim:
# with more noise the ridge (1 + κ)s² is larger.

# %%
random = np.random.default_rng(0)
features = random.normal(size=(200, 5)) @ random.normal(size=(5, 5)) / 2
signal = features.T @ features / 200
noise = 0.5 * random.normal(size=200)
target = features @ random.normal(size=5) + noise
c = features.T @ target / 200


def neuron_loss(gamma, w, covariance):
    """The square loss of the neuron, up to a constant."""
    return gamma**2 / 2 - gamma * (c @ w) / jnp.sqrt(w @ covariance @ w)


# %%
gamma, ridges = 0.3, []
for s in (0.0, 0.1, 0.3, 1.0):
    covariance = signal + s**2 * np.eye(5)
    w = np.linalg.solve(covariance, c)  # The minimum, at any length.
    kappa = float(-jax.grad(neuron_loss)(gamma, w, covariance) / gamma)
    u = gamma * w / np.sqrt(w @ covariance @ w)
    # The gradient is of float32, and a difference of numbers of its size.
    assert np.allclose((1 + kappa) * covariance @ u, c, rtol=1e-4)
    ridges.append((1 + kappa) * s**2)
    print(f"noise {s}: κ {kappa:.3f}, ridge {ridges[-1]:.3f}")
assert np.all(np.diff(ridges) > 0)

# %%
# The control: a trained γ is at a minimum, so κ is 0 there.
best = np.sqrt(c @ w)
assert abs(jax.grad(neuron_loss)(best, w, covariance)) < 1e-5 * best

# %% [markdown]
# ## Distances to the kinks of a ReLU network
#
# A unit w'x + b bends at the plane w'x = -b, at the distance |w'x + b|/|w| from
# x. BatchNorm takes the offset of least mean square distance, which then is
# var(w'x)/|w|².

# %%
kernel = normal(3, 64, 32)
z = images @ kernel
norms = psi_optax.group_norms(kernel, ScaleGroup(0))


def mean_square(offset):
    return jnp.mean((z - offset) ** 2, axis=0) / norms**2


distances = mean_square(z.mean(0))
# Sums of 1797 squares: some roundings.
assert jnp.allclose(distances, z.var(0) / norms**2, rtol=1e-4)
slope = jax.grad(lambda offset: mean_square(offset).sum())(z.mean(0))
assert jnp.all(jnp.abs(slope) < 1e-4)
assert mean_square(0.0).mean() > distances.mean()  # The control.
print(f"{mean_square(0.0).mean():.3f} -> {distances.mean():.3f}")

# %% [markdown]
# Offsets and scales can be taken from the data once, before a training without
# BatchNorm. The claim ([Balestriero and
# Baraniuk](https://arxiv.org/abs/2209.14778)): more units then separate the
# data, and training is faster.


# %%
def layer_inputs(layers, x, adapt=False):
    """The pre-activations of all layers, and the layers."""
    used, outputs = [], []
    for index, (w, b) in enumerate(layers):
        z = x @ w + b
        if adapt and index < len(layers) - 1:
            w, b = w / z.std(0), (b - z.mean(0)) / z.std(0)
            z = x @ w + b
        used.append((w, b))
        outputs.append(z)
        x = jax.nn.relu(z)
    return outputs, used


# %%
widths = [64, *[32] * 8, 10]
default = [
    (np.sqrt(2) * normal(i, m, n), jnp.zeros(n))
    for i, (m, n) in enumerate(itertools.pairwise(widths))
]
adapted = layer_inputs(default, images, adapt=True)[1]


# %%
def cross_entropy(logits, labels):
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean()


def relu_loss(layers):
    logits = layer_inputs(layers, images[:512])[0][-1]
    return cross_entropy(logits, labels[:512])


# %%
tx, ends = optax.sgd(0.05), {}
for name, layers in {"default": default, "adapted": adapted}.items():
    deep = layer_inputs(layers, images)[0][-2]
    split = jnp.mean((deep.min(0) < 0) & (deep.max(0) > 0))
    regions = len(np.unique(np.asarray(deep > 0), axis=0))
    carry = layers, tx.init(layers)
    ends[name] = descend(relu_loss, tx, carry, 100)[1][-1]
    print(f"{name}: {split:.0%} of deep units separate the data,", end="")
    print(f" {regions} regions, loss {ends[name]:.3f} after 100 steps")
assert split == 1
assert ends["adapted"] < ends["default"]

# %% [markdown]
# ## Batch entropy
#
# The entropy of Gaussian units, ½ log(πe var + 1), in the mean over the units
# of a layer, is 0 where a layer is constant over the batch. The claim ([Peer et
# al.](https://arxiv.org/abs/2208.01134)): a term that keeps it near learned
# values trains plain layers, here 30, that do not train without.


# %%
def batch_entropy(h):
    variance = jnp.var(h, axis=0, ddof=1)
    return jnp.mean(0.5 * jnp.log(jnp.pi * jnp.e * variance + 1))


for std in (0.5, 1.0, 2.0):
    h = std * jax.random.normal(key, (20_000, 8))
    exact = 0.5 * np.log(np.pi * np.e * std**2 + 1)
    # A variance of 160,000 samples has the relative error 0.0035.
    assert np.isclose(batch_entropy(h), exact, atol=4 * 0.0035 / 2)
assert batch_entropy(jnp.ones((20, 8))) == 0  # The control: a dead layer.

# %%
DEPTH, WIDTH = 30, 48


def uniform(key, *shape):
    """Uniform up to 1/√fan_in, a common default."""
    limit = shape[-2] ** -0.5
    return jax.random.uniform(key, shape, minval=-limit, maxval=limit)


def plain_network(params, x):
    """The logits, and the batch entropy of each layer."""

    def layer(h, w):
        h = jax.nn.relu(h @ w[:-1] + w[-1])
        return h, batch_entropy(h)

    h = jax.nn.relu(x @ params["first"])
    h, entropies = jax.lax.scan(layer, h, params["hidden"])
    return h @ params["head"], entropies


# %%
keys = jax.random.split(key, 3)
plain_params = {
    "first": uniform(keys[0], 64, WIDTH),
    "hidden": uniform(keys[1], DEPTH, WIDTH + 1, WIDTH),
    "head": uniform(keys[2], WIDTH, 10),
    "wanted": jnp.full(DEPTH, 0.8),
}


def plain_loss(params, strength):
    logits, entropies = plain_network(params, images[:256])
    wanted = jnp.maximum(jnp.abs(params["wanted"]), 0.2)
    term = jnp.mean((entropies - wanted) ** 2)
    return cross_entropy(logits, labels[:256]) * (1 + strength * term)


# %%
tx, right = optax.adam(1e-3), {}
for name, strength in {"without": 0.0, "with": 1.0}.items():
    carry = plain_params, tx.init(plain_params)
    steps = 50 if SMOKE else 1500
    args = (jnp.full(steps, strength),)
    (fitted, _), losses = descend(plain_loss, tx, carry, steps, args)
    logits, entropies = plain_network(fitted, images[:256])
    right[name] = jnp.mean(logits.argmax(1) == labels[:256])
    print(f"{name} the term: accuracy {right[name]:.1%}", end=", ")
    print(f"entropy of the last layer {entropies[-1]:.4f}")
assert SMOKE or right["with"] > 0.9 > 0.2 > right["without"]

# %% [markdown]
# ## Geometric complexity
#
# The mean of ‖df/dx‖² over the data, with the statistics of BatchNorm fixed
# ([Dherin et al.](https://arxiv.org/abs/2209.13083)). It is a measure of the
# function, so it does not depend on the scale of filters. For a linear map A it
# is ‖A‖². Small noise of variance s² in the inputs changes the outputs by s²
# times it, in mean square.


# %%
def complexity(function, inputs):
    jacobians = jax.vmap(jax.jacrev(function))(inputs)
    return jnp.mean(jnp.sum(jacobians**2, axis=(1, 2)))


def frozen(params):
    """The network with the statistics of x."""
    statistics = network(params, x)[1]
    return lambda inputs: network(params, inputs, statistics)[0]


A = normal(4, 64, 10)
assert np.isclose(complexity(lambda row: row @ A, x), jnp.sum(A**2), rtol=1e-5)
size = complexity(frozen(trained), x)
assert np.isclose(complexity(frozen(rescale(trained)), x), size, rtol=1e-5)

# %%
# 20 samples of noise in 64 dimensions for each of 200 inputs; the squares of
# outputs have a relative deviation near 1.
xi = 0.01 * jax.random.normal(key, (20, *x.shape))
moved = (frozen(trained)(x + xi) - frozen(trained)(x)) / 0.01
assert np.isclose(jnp.mean(jnp.sum(moved**2, -1)), size, rtol=5 / 4000**0.5)
# The control: in training mode the outputs of a row depend on other rows.
others = jax.grad(lambda x: network(trained, x)[0][0].sum())(x)[1:]
fixed = jax.grad(lambda x: frozen(trained)(x)[0].sum())(x)[1:]
assert jnp.abs(others).max() > 0
assert jnp.all(fixed == 0)
print(f"geometric complexity {size:.3f}")

# %% [markdown]
# The claim is that penalties of the spectral norms and of the gradient's norm
# reduce it, too. The spectral norms do. The gradient's norm does not here: it
# vanishes as the training ends, and three times this strength prevents
# training.


# %%
def small_network(params, x):
    return jnp.tanh(x @ params["hidden"]) @ params["head"]


def fit(params):
    return cross_entropy(small_network(params, images[:256]), labels[:256])


def spectral(w):
    return jnp.linalg.norm(w, 2) ** 2


def penalized(penalty, params):
    return fit(params) + penalty(params)


def mean_complexity(params, inputs=images[:32]):
    return complexity(functools.partial(small_network, params), inputs)


# %%
penalties = {
    "none": lambda _: 0.0,
    "complexity": lambda p: 0.01 * mean_complexity(p),
    "spectral norms": lambda p: 0.01 * sum(spectral(w) for w in p.values()),
    "gradient norm": lambda p: optax.tree.norm(jax.grad(fit)(p)) ** 2,
}


# %%
small = {"hidden": normal(5, 64, 32), "head": normal(6, 32, 10)}
tx, sizes = optax.sgd(0.3), {}
for name, penalty in penalties.items():
    carry = small, tx.init(small)
    loss_of = functools.partial(penalized, penalty)
    (fitted, _), _ = descend(loss_of, tx, carry, 100 if SMOKE else 500)
    sizes[name] = mean_complexity(fitted, images)
    accuracy = jnp.mean(small_network(fitted, images).argmax(1) == labels)
    print(f"{name:15} complexity {sizes[name]:7.3f}, accuracy {accuracy:.1%}")
assert sizes["complexity"] < 0.5 * sizes["none"]
assert sizes["spectral norms"] < 0.9 * sizes["none"]
assert np.isclose(sizes["gradient norm"], sizes["none"], rtol=0.1)

# %% [markdown]
# ## Dropout's implicit regularization
#
# Dropout of the last hidden layer, with the probability p to keep a unit, adds
# to the square loss, in the mean, R1 = (1 - p)/p · mean Σ (a h)², with the
# activations h and output weights a ([Zhang and
# Xu](https://arxiv.org/abs/2207.05952)).

# %%
line = jnp.linspace(-1, 1, 24)
curve = jnp.maximum(line - 0.2, 0) - jnp.maximum(-line - 0.4, 0)
KEEP, UNITS = 0.8, 50


def terms(params):
    """The share of each unit in the output, shape (n, units)."""
    slope, offset, a = params
    return a * jnp.tanh(slope * line[:, None] + offset)


def dropped_loss(params, key, keep=KEEP):
    kept = jax.random.bernoulli(key, keep, (len(line), UNITS)) / keep
    return jnp.mean((jnp.sum(kept * terms(params), axis=1) - curve) ** 2)


# %%
one = tuple(0.3 * jax.random.normal(k, (UNITS,)) for k in keys)
samples = jax.vmap(functools.partial(dropped_loss, one))(
    jax.random.split(key, 4000)
)
without = dropped_loss(one, key, keep=1.0)
r1 = (1 - KEEP) / KEEP * jnp.mean(jnp.sum(terms(one) ** 2, axis=1))
error = samples.std() / len(samples) ** 0.5
print(f"{samples.mean():.4f} ± {error:.4f}, {without + r1:.4f} by R1")
assert abs(samples.mean() - without - r1) < 4 * error
assert abs(samples.mean() - without) > 10 * error  # Without R1.

# %% [markdown]
# Two claims: units condense, so that few directions of (slope, offset) are
# left, and the covariance of the noise in the gradient aligns with the Hessian.

# %%
steps = 1000 if SMOKE else 40_000
condensed, ends, tx = {}, {}, optax.sgd(0.05)
for keep in (1.0, KEEP):
    args = jax.random.split(key, steps), jnp.full(steps, keep)
    carry = one, tx.init(one)
    (fitted, _), _ = descend(dropped_loss, tx, carry, steps, args)
    lengths = jnp.hypot(*fitted[:2])
    filters = jnp.stack(fitted[:2]) / lengths
    share = jnp.abs(fitted[2]) * lengths
    share = share / share.sum()
    condensed[keep] = share @ jnp.abs(filters.T @ filters) @ share
    ends[keep] = fitted
    print(f"keep {keep}: mean |cosine| of filters {condensed[keep]:.3f}")
assert SMOKE or condensed[KEEP] > condensed[1.0]

# %%
flat, unravel = jax.flatten_util.ravel_pytree(ends[KEEP])


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, 0))
def noisy_gradient(flat, key):
    return jax.grad(lambda w: dropped_loss(unravel(w), key))(flat)


def alignment(h, c):
    return jnp.sum(h * c) / jnp.linalg.norm(h) / jnp.linalg.norm(c)


# %%
clean = functools.partial(dropped_loss, key=key, keep=1.0)
hessian = jax.jit(jax.hessian(lambda w: clean(unravel(w))))(flat)
covariance = jnp.cov(noisy_gradient(flat, jax.random.split(key, 2000)).T)
# The control: the same spectrum in random directions.
q = jnp.linalg.qr(jax.random.normal(key, hessian.shape))[0]
aligned, by_chance = (
    float(alignment(hessian, c)) for c in (covariance, q @ covariance @ q.T)
)
print(f"alignment {aligned:.3f}, of random directions {by_chance:.3f}")
assert aligned > 2 * abs(by_chance)

# %% [markdown]
# ## The part of the weights outside of the data
#
# Gradients are combinations of the inputs. The part of a kernel outside of
# their span only decays: by (1 - ηλ)^t after t steps of SGD. Some pixels of the
# digits are always blank.

# %%
rate, decay, steps = 0.1, 0.05, 100
tx = optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate))
(fitted, _), _ = descend(fit, tx, (small, tx.init(small)), steps)
split = functools.partial(
    psi_optax.diagnostics.split_by_input_span,
    inputs=images[:256],
    centered=False,
)
before, after = (split(p["hidden"]) for p in (small, fitted))
factor = (1 - rate * decay) ** steps
# Each of 100 steps rounds a weight.
assert jnp.allclose(after[1], factor * before[1], atol=100 * 2**-24)
assert not jnp.allclose(after[0], factor * before[0], atol=0.01)
print(f"outside {jnp.linalg.norm(after[1]) / jnp.linalg.norm(before[1]):.5f}")

# %% [markdown]
# ## Importance and redundancy of units from one gradient
#
# Multiply each unit by a gate of 1, one for each example. The gradient G with
# respect to the gates, of shape (n, units), is one backward pass. The mean of
# its squares is the Taylor importance ([Molchanov et
# al.](https://arxiv.org/abs/1906.10771)). Here the units are those of the
# second layer, and the head minimizes the loss, so that the mean of G vanishes.


# %%
@jax.jit
def gated_losses(gates, hidden, head):
    return 0.5 * jnp.sum(((gates * hidden) @ head - targets) ** 2, axis=1)


def gate_gradient(hidden, head):
    gates = jnp.ones(hidden.shape)
    total = functools.partial(gated_losses, hidden=hidden, head=head)
    return jax.vjp(total, gates)[1](jnp.ones(len(hidden)))[0]


hidden = network(trained | {"head": jnp.eye(24)}, x)[0]
head = jnp.asarray(np.linalg.lstsq(hidden, targets)[0])
G = gate_gradient(hidden, head)
importance = jnp.mean(G**2, axis=0)
# Rounding, relative to the size of G.
assert jnp.abs(G.mean(0)).max() < 1e-5 * importance.max() ** 0.5


# %%
def loss_without(removed):
    return gated_losses(1.0 - removed, hidden, head).mean()


def rank_correlation(*values):
    return np.corrcoef([np.argsort(np.argsort(v)) for v in values])[0, 1]


increases = [loss_without(unit) - loss_without(0.0) for unit in jnp.eye(24)]
of_squares = rank_correlation(importance, increases)
of_mean = rank_correlation(G.mean(0) ** 2, increases)
print(f"rank correlation with removal {of_squares:.2f}, ", end="")
print(f"of the squared mean gradient {of_mean:.2f}")
assert of_squares > 0.8 > of_mean  # The control is rounding.

# %% [markdown]
# For an output that is linear in the gates, the gradient is the effect of
# removing a unit. Behind BatchNorm its sum is γ dL/dγ + β dL/dβ.


# %%
def linear_output(gates):
    return jnp.mean((gates * hidden) @ head[:, 0])


gates = jnp.ones(24)
effect = linear_output(gates) - linear_output(gates.at[5].set(0.0))
# A difference of two numbers of size 1, in float32.
assert np.isclose(jax.grad(linear_output)(gates)[5], effect, atol=1e-6)


# %%
def behind_batchnorm(gates, scale, bias):
    z = scale * jax.nn.standardize(hidden, axis=0) + bias
    return jnp.mean(jnp.cos(gates * z).sum(1))


scale, bias = jnp.linspace(0.5, 2, 24), jnp.linspace(-1, 1, 24)
gates = jnp.ones_like(hidden)
slopes = jax.grad(behind_batchnorm, (0, 1, 2))(gates, scale, bias)
expected = scale * slopes[1] + bias * slopes[2]
# Sums of 200 terms of size 1/200: some roundings of 1.
assert jnp.allclose(slopes[0].sum(0), expected, atol=1e-5)
assert not jnp.allclose(slopes[0].sum(0), scale * slopes[1], atol=1e-2)

# %% [markdown]
# The claim: pruning by Taylor importance loses less than by the norm of
# filters. `psi_sgd` keeps the norms of the start, which carry no information.

# %%
norms = psi_optax.group_norms(trained["second"], ScaleGroup(0))
figure, axes = plt.subplots(figsize=(5, 3))
areas = {}
for name, score in {"Taylor": importance, "magnitude": norms}.items():
    ranks = jnp.argsort(jnp.argsort(score))
    losses = [loss_without(1.0 * (ranks < count)) for count in range(23)]
    areas[name] = np.mean(losses)
    axes.plot(losses, label=name)
axes.set(xlabel="units removed", ylabel="loss")
axes.legend()
print({name: round(float(area), 3) for name, area in areas.items()})
assert areas["Taylor"] < 0.95 * areas["magnitude"]

# %% [markdown]
# Three planted duplicates, of other output weights, do not raise the rank of G,
# and parallel columns name them.

# %%
copies = jnp.array([2, 7, 11])
planted = (
    jnp.hstack([hidden, hidden[:, copies]]),
    jnp.vstack([head, 0.5 * head[copies]]),
)
columns = gate_gradient(*planted)
# Singular values of duplicates are rounding errors, 1e-7 of the largest.
ranks = [int(np.linalg.matrix_rank(g, rtol=1e-5)) for g in (G, columns)]
columns = columns / jnp.linalg.norm(columns, axis=0)
parallel = jnp.triu(jnp.abs(columns.T @ columns) > 1 - 1e-5, 1)
pairs = np.argwhere(parallel).tolist()
print(f"ranks {ranks} of 24 and 27, duplicates {pairs}")
assert ranks == [24, 24]  # The first is the control: full rank.
assert pairs == [[2, 24], [7, 25], [11, 26]]

# %% [markdown]
# ## The Gram matrix, its limit and its drift
#
# With the Jacobian J of the outputs, gradient descent on the square loss of n
# examples contracts residuals by I - ηJJ'/n. For the first layer of a wide
# ReLU network JJ' tends to x'y (π - arccos x'y)/(2π), for inputs of norm 1
# ([Du et al.](https://arxiv.org/abs/1810.02054)).

# %%
points = jax.random.normal(key, (20, 5))
points = points / jnp.linalg.norm(points, axis=1, keepdims=True)
wanted = jnp.sin(3 * points[:, 0])


def wide(w):
    """A two-layer network with output weights of alternating sign."""
    signs = jnp.where(jnp.arange(len(w)) % 2, 1.0, -1.0)
    return jax.nn.relu(points @ w.T) @ signs / len(w) ** 0.5


@jax.jit
def gram(w):
    jacobian = jax.jacrev(wide)(w).reshape(len(points), -1)
    return jacobian @ jacobian.T


# %%
width = 20_000 if SMOKE else 200_000
dots = jnp.clip(points @ points.T, -1, 1)
limit = dots * (jnp.pi - jnp.arccos(dots)) / (2 * jnp.pi)
error = jnp.abs(gram(jax.random.normal(key, (width, 5))) - limit).max()
# A mean of values in {0, 1} has a standard error of 0.5/√width or less.
print(f"largest error {error:.1e}, least eigenvalue", end=" ")
print(f"{np.linalg.eigvalsh(limit)[0]:.1e}")
assert error < 5 * 0.5 / width**0.5


# %%
def wide_loss(w):
    return 0.5 * jnp.mean((wide(w) - wanted) ** 2)


tx, steps, drifts = optax.sgd(1.0), 50, {}
for width in (100, 10_000):
    w = jax.random.normal(key, (width, 5))
    (end, _), _ = descend(wide_loss, tx, (w, tx.init(w)), steps)
    before, after = np.asarray(gram(w)), np.asarray(gram(end))
    contraction = np.linalg.matrix_power(np.eye(20) - before / 20, steps)
    predicted = contraction @ np.asarray(wide(w) - wanted)
    miss = np.linalg.norm(predicted - (wide(end) - wanted))
    miss = miss / np.linalg.norm(predicted)
    drifts[width] = np.linalg.norm(after - before) / np.linalg.norm(before)
    print(f"width {width}: drift {drifts[width]:.4f}, residuals", end=" ")
    print(f"{miss:.4f} from the prediction")
# Both fall like 1/√width, here by 10.
assert drifts[100] > 4 * drifts[10_000]
assert miss < 0.05

# %% [markdown]
# Outputs do not depend on the length of filters: J maps it to zero.


# %%
def outputs_of(first):
    return network(trained | {"first": first}, x)[0]


def along(direction):
    change = jax.jvp(outputs_of, (trained["first"],), (direction,))[1]
    return jnp.linalg.norm(change)


w = trained["first"]
other = jax.random.normal(key, w.shape) * jnp.linalg.norm(w) / w.size**0.5
print(f"J w {along(w):.1e}, J of another direction {along(other):.1e}")
assert along(w) < 1e-4 * along(other)
