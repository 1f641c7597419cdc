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
# units that do not depend on the scale of filters. Each section asserts a
# closed form, or tests a claim of a paper. You will see
#
# 1. curvature in radians, which does not change if filters are rescaled;
# 2. `psi_sgd` at the edge of stability;
# 3. surfaces of the loss, barriers between solutions, and spectral densities;
# 4. a learning rate and a momentum from curvature, which are better per step
#    than a grid of constants;
# 5. claims about BatchNorm, ReLU networks, entropy, complexity, dropout,
#    pruning and the Gram matrix. All but one hold here: a penalty of the
#    gradient's norm does not reduce geometric complexity.
#
# On Colab choose a CPU runtime: the notebook takes about 2 minutes on two CPU
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

plt.style.use("tableau-colorblind10")
# The tests set PSI_OPTAX_SMOKE for a short run.
SMOKE = bool(os.environ.get("PSI_OPTAX_SMOKE"))
if SMOKE:
    print("A short run: its numbers are not those of the text.")
    jax.config.update("jax_disable_most_optimizations", True)
# By default TPUs and some GPUs multiply float32 numbers in a lower precision.
# Assertions here are to the rounding of float32.
jax.config.update("jax_default_matmul_precision", "highest")

# %% [markdown]
# ## A network
#
# 200 digits, two tanh layers with BatchNorm, and the square loss. The columns
# of both kernels are scale groups. The head has none.

# %%
digits = load_digits()
images = jnp.asarray(digits.data / 16, jnp.float32)
labels = jnp.asarray(digits.target, jnp.int32)
x, targets = images[:200], jax.nn.one_hot(labels[:200], 10)
groups = {"first": ScaleGroup(0), "second": ScaleGroup(0), "head": None}
powers = 2.0 ** np.random.default_rng(0).integers(-6, 7, 24)


def normal(seed, *shape):
    w = np.random.default_rng(seed).normal(size=shape) / np.sqrt(shape[0])
    return jnp.asarray(w, jnp.float32)


def new_params(seed=0):
    kernels = normal(seed, 64, 24), normal(seed + 1, 24, 24)
    head = 0.1 * normal(seed + 2, 24, 10)
    return {"first": kernels[0], "second": kernels[1], "head": head}


def rescale(params):
    """Multiply each filter of the first layer by a power of two."""
    return params | {"first": params["first"] * jnp.float32(powers)}


def network(params, x, statistics=(None, None)):
    """Return the outputs, and the mean and variance of each BatchNorm."""
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


def cross_entropy(logits, labels):
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean()


@functools.partial(jax.jit, static_argnums=(0, 1, 3))
def descend(loss_of, tx, carry, steps, args=()):
    """Train (params, state); return them and the losses."""

    def step(carry, args):
        params, state = carry
        loss, gradient = jax.value_and_grad(loss_of)(params, *args)
        updates, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), loss

    return jax.lax.scan(step, carry, args, length=steps)


def train(loss_of, tx, params, steps, args=()):
    """Return the trained weights and the losses."""
    carry = params, tx.init(params)
    (params, _), losses = descend(loss_of, tx, carry, steps, args)
    return params, losses


# %% [markdown]
# ## The idea
#
# Measures are taken in coordinates in which the step of a filter is an angle in
# radians and has no radial part. They do not depend on the scale of filters. If
# each filter is multiplied by a power of two, the top eigenvalue of the Hessian
# in radians is the same in every bit. That of the plain Hessian changes by
# orders of magnitude.


# %%
def top(groups):
    """Return a function that measures the top eigenvalue."""

    @jax.jit
    def pairs(params, start):
        curvature = landscape.hessian(loss_fn, params, groups=groups)
        return landscape.eigenpairs(curvature, start, num_matvecs=16)

    return pairs


params, key = new_params(), jax.random.key(0)
plain, sharpness = top(None), top(groups)
for name, measure in {"plain": plain, "in radians": sharpness}.items():
    weights = params, rescale(params)
    before, after = (measure(w, key).values[0] for w in weights)
    print(f"{name:11} {before:8.3f}, after rescaling {after:.3f}")
    assert after > 10 * before if measure is plain else after == before

# %% [markdown]
# ## The edge of stability
#
# Under gradient descent the top eigenvalue rises to the threshold of stability,
# 2/η, and stays there ([Cohen et al.](https://arxiv.org/abs/2103.00065)). The
# same holds for `psi_sgd`, in radians. With a lower learning rate the threshold
# is not reached, and no step raises the loss. Each measurement starts from the
# eigenvectors of the last one.


# %%
def follow(rate):
    """Return trained weights, ratios to the threshold, and losses."""
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
for rate, (_, ratios, losses) in runs.items():
    raised = np.mean(np.diff(losses) > 1e-6)
    print(f"learning rate {rate}: top eigenvalue / threshold {ratios[-1]:.3f},")
    print(f"    {raised:.0%} of the steps raise the loss")
# The eigenvalue oscillates about the threshold, here by 2.4 %.
assert np.all(np.abs(runs[0.3][1][-3:] - 1) < 0.05)
assert np.all(runs[0.05][1] < 0.9)
assert np.all(np.diff(runs[0.05][2]) <= 1e-6)  # Rounding of a loss near 1.
ratios = np.stack([ratios for _, ratios, _ in runs.values()], axis=1)
landscape.plot_edge(ratios, 1.0, steps=100 * np.arange(1, len(ratios) + 1))

# %% [markdown]
# ## Surfaces
#
# The loss along two filter-normalized directions ([Li et
# al.](https://arxiv.org/abs/1712.09913)). For rescaled filters it is the same
# in every bit.

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


losses = surface(trained, directions)
assert jnp.all(surface(rescale(trained), directions) == losses)
# The control: without groups the same step is a larger angle of small filters.
without_groups = functools.partial(
    landscape.loss_surface, loss_fn, directions=directions[:1], steps=[0.5]
)
assert not jnp.allclose(
    without_groups(trained), without_groups(rescale(trained)), rtol=0.01
)
figure = landscape.plot_surface(losses, steps)
figure.set_size_inches(5, 3.5)
figure

# %% [markdown]
# The barrier between two solutions is the largest excess of the loss over
# linear interpolation. On a straight line it depends on the scales of the
# filters. On the geodesics of the filters it does not.

# %%
other, _ = train(loss_fn, psi_optax.psi_sgd(0.3, groups), new_params(10), 500)
times = jnp.linspace(0, 1, 11)


def barrier(end, groups):
    path = landscape.geodesic(trained, end, groups)
    losses = jax.lax.map(lambda t: loss_fn(path(t)), times)
    return jnp.max(losses - (1 - times) * losses[0] - times * losses[-1])


for name, given in {"line": None, "geodesic": groups}.items():
    barriers = [barrier(end, given) for end in (other, rescale(other))]
    before, after = barriers
    print(f"barrier on the {name}: {before:.4f}, after rescaling {after:.4f}")
    # exp and log round norms.
    same = np.isclose(*barriers, rtol=1e-2 if given is None else 1e-4)
    assert same == (given is not None)

# %% [markdown]
# ## Densities before and after training
#
# After training most eigenvalues are near zero, and a few are large ([Ghorbani
# et al.](https://arxiv.org/abs/1901.10159)). The mean of the density times the
# dimension is the trace. Random probes estimate it independently.


# %%
@jax.jit
def spectrum(params):
    curvature = landscape.hessian(loss_fn, params, groups=groups)
    density = landscape.spectral_density(curvature, key, num_matvecs=48)
    return density, landscape.trace(curvature, jax.random.key(1))


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
# On a quadratic loss with eigenvalues from m to L the optimal coefficients of
# momentum are η = (2/(√L + √m))² and μ = ((√L - √m)/(√L + √m))². The error then
# decreases like √μ per step. Lanczos measures L and m.


# %%
def coefficients(pairs):
    """Return the optimal coefficients, for m of at least L/1000."""
    size = jnp.where(jnp.isfinite(pairs.residuals), jnp.abs(pairs.values), 0)
    large, small = size.max(), jnp.maximum(size[-1], 1e-3 * size.max())
    a, b = jnp.sqrt(large), jnp.sqrt(small)
    return {
        "learning_rate": (2 / (a + b)) ** 2,
        "momentum": ((a - b) / (a + b)) ** 2,
    }


def learn(loss_of, groups, params, steps, num_matvecs=16, fixed=None):
    """Train with fixed coefficients, or measured ones every 5 steps."""
    static = ("groups", "nesterov", "ordinary", "radius", "retraction")
    make = optax.inject_hyperparams(psi_optax.psi_sgd, static_args=static)
    tx = make(learning_rate=0.1, momentum=0.9, groups=groups)

    @jax.jit
    def measure(params):
        curvature = landscape.hessian(loss_of, params, groups=groups)
        options = {"num_smallest": 1, "num_matvecs": num_matvecs}
        return coefficients(landscape.eigenpairs(curvature, key, **options))

    carry, losses = (params, tx.init(params)), []
    for _ in range(steps // 5):
        carry[1].hyperparams.update(fixed or measure(carry[0]))
        carry, part = descend(loss_of, tx, carry, 5)
        losses.append(part)
    return carry[1].hyperparams, np.concatenate(losses)


def quadratic(w):
    return 0.5 * jnp.sum(jnp.linspace(1, 100, 20) * w**2)


chosen, losses = learn(quadratic, None, jnp.ones(20), 60, num_matvecs=20)
pace = (losses[50] / losses[20]) ** (1 / 60)  # The loss is of degree 2.
print({name: round(float(value), 4) for name, value in chosen.items()})
assert np.isclose(chosen["learning_rate"], (2 / 11) ** 2, rtol=1e-3)
assert np.isclose(chosen["momentum"], (9 / 11) ** 2, rtol=1e-3)
# A double root: the weights are like t √μ^t for large t.
assert np.isclose(pace, 9 / 11 * (50 / 20) ** (1 / 30), rtol=0.01)

# %% [markdown]
# The claim ([Granziol et al.](https://arxiv.org/abs/2006.09092)) is that
# measured coefficients are better than tuned constants on a network. Per step
# they are better than this grid. But the 16 products every 5 steps cost as much
# as 8 gradients per step. NaN is a run that diverged. Losses oscillate at the
# edge of stability, so we compare the medians of the last 50.

# %%
steps, grid = 200 if SMOKE else 1000, {}
learned = np.median(learn(loss_fn, groups, params, steps)[1][-50:])
for rate in (0.03, 0.1) if SMOKE else (0.03, 0.1, 0.3, 1.0):
    for momentum in (0.0, 0.9):
        fixed = {"learning_rate": rate, "momentum": momentum}
        fixed = {name: jnp.float32(value) for name, value in fixed.items()}
        _, losses = learn(loss_fn, groups, params, steps, fixed=fixed)
        grid[rate, momentum] = np.median(losses[-50:])
print(f"measured: {learned:.2e}, constants:")
print({name: f"{loss:.2e}" for name, loss in grid.items()})
assert learned < np.nanmin(list(grid.values()))

# %% [markdown]
# ## BatchNorm as a ridge that tunes itself
#
# A linear neuron with BatchNorm of constant scale γ is a ridge regression
# ([Annamalai and Thakur](https://arxiv.org/abs/2209.07587)). Its weights solve
# (1 + κ)(S + s²I)u = c, with the covariance S of the inputs, their noise s, and
# the covariance c of inputs and targets. The multiplier κ = -(dL/dγ)/γ follows
# from a gradient that BatchNorm has. The claim: the ridge (1 + κ)s² grows with
# the noise.

# %%
random = np.random.default_rng(0)
features = random.normal(size=(200, 5)) @ random.normal(size=(5, 5)) / 2
noise = 0.5 * random.normal(size=200)
c = features.T @ (features @ random.normal(size=5) + noise) / 200


def neuron_loss(gamma, w, covariance):
    """Return the square loss of the neuron, up to a constant."""
    return gamma**2 / 2 - gamma * (c @ w) / jnp.sqrt(w @ covariance @ w)


gamma, ridges = 0.3, []
for s in (0.0, 0.1, 0.3, 1.0):
    covariance = features.T @ features / 200 + s**2 * np.eye(5)
    w = np.linalg.solve(covariance, c)  # The minimum, at any norm.
    kappa = float(-jax.grad(neuron_loss)(gamma, w, covariance) / gamma)
    u = gamma * w / np.sqrt(w @ covariance @ w)
    # A float32 gradient, which is a difference of numbers of its size.
    assert np.allclose((1 + kappa) * covariance @ u, c, rtol=1e-4)
    ridges.append((1 + kappa) * s**2)
    print(f"noise {s}: κ {kappa:.3f}, ridge {ridges[-1]:.3f}")
assert np.all(np.diff(ridges) > 0)
# The control: if γ is trained, κ is 0.
best = np.sqrt(c @ w)
assert abs(jax.grad(neuron_loss)(best, w, covariance)) < 1e-5 * best

# %% [markdown]
# ## Distances to the kinks of a ReLU network
#
# A unit w'x + b has its kink at the plane w'x = -b, at the distance
# |w'x + b|/|w| from x. The offset of BatchNorm minimizes the mean square of
# distances, which is then var(w'x)/|w|² ([Balestriero and
# Baraniuk](https://arxiv.org/abs/2209.14778)).

# %%
kernel = normal(3, 64, 32)
z, norms = images @ kernel, psi_optax.group_norms(kernel, ScaleGroup(0))


def mean_square(offset):
    return jnp.mean((z - offset) ** 2, axis=0) / norms**2


distances = mean_square(z.mean(0))
# Sums of 1797 squares: some rounding errors.
assert jnp.allclose(distances, z.var(0) / norms**2, rtol=1e-4)
slope = jax.grad(lambda offset: mean_square(offset).sum())(z.mean(0))
assert jnp.all(jnp.abs(slope) < 1e-4)
assert mean_square(0.0).mean() > distances.mean()  # The control.
print(f"offset 0: {mean_square(0.0).mean():.3f}, mean: {distances.mean():.3f}")

# %% [markdown]
# Offsets and scales can be computed from the data once, for training without
# BatchNorm. The claim of the same paper: more units then separate the data, and
# training is faster.


# %%
def layer_inputs(layers, x, adapt=False):
    """Return the pre-activations of all layers, and the layers."""
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


def relu_loss(layers):
    return cross_entropy(
        layer_inputs(layers, images[:512])[0][-1], labels[:512]
    )


widths = [64, *[32] * 8, 10]
default = [
    (np.sqrt(2) * normal(i, m, n), jnp.zeros(n))
    for i, (m, n) in enumerate(itertools.pairwise(widths))
]
adapted = layer_inputs(default, images, adapt=True)[1]
ends = {}
for name, layers in {"default": default, "adapted": adapted}.items():
    deep = layer_inputs(layers, images)[0][-2]
    split = jnp.mean((deep.min(0) < 0) & (deep.max(0) > 0))
    regions = len(np.unique(np.asarray(deep > 0), axis=0))
    ends[name] = train(relu_loss, optax.sgd(0.05), layers, 100)[1][-1]
    print(f"{name}: {split:.0%} of deep units separate the data,", end="")
    print(f" {regions} regions, loss {ends[name]:.3f} after 100 steps")
assert split == 1
assert ends["adapted"] < ends["default"]

# %% [markdown]
# ## Batch entropy
#
# The batch entropy of a layer is the mean over its units of ½ log(πe var + 1).
# It is 0 if the layer is constant over the batch. The claim ([Peer et
# al.](https://arxiv.org/abs/2208.01134)): a term that keeps it near learned
# values trains plain networks, here with 30 layers, that do not train without
# it.


# %%
def batch_entropy(h):
    variance = jnp.var(h, axis=0, ddof=1)
    return jnp.mean(0.5 * jnp.log(jnp.pi * jnp.e * variance + 1))


for std in (0.5, 1.0, 2.0):
    h = std * jax.random.normal(key, (20_000, 8))
    exact = 0.5 * np.log(np.pi * np.e * std**2 + 1)
    # A variance of 160,000 samples has the relative error 0.0035.
    assert np.isclose(batch_entropy(h), exact, atol=4 * 0.0035 / 2)
assert batch_entropy(jnp.ones((20, 8))) == 0  # The control: a constant layer.


# %%
def uniform(key, *shape):
    """Return weights uniform up to 1/√fan_in, a common default."""
    limit = shape[-2] ** -0.5
    return jax.random.uniform(key, shape, minval=-limit, maxval=limit)


def plain_network(params, x):
    """Return the logits, and the batch entropy of each layer."""

    def layer(h, w):
        h = jax.nn.relu(h @ w[:-1] + w[-1])
        return h, batch_entropy(h)

    h = jax.nn.relu(x @ params["first"])
    h, entropies = jax.lax.scan(layer, h, params["hidden"])
    return h @ params["head"], entropies


def plain_loss(params, strength):
    logits, entropies = plain_network(params, images[:256])
    wanted = jnp.maximum(jnp.abs(params["wanted"]), 0.2)
    term = jnp.mean((entropies - wanted) ** 2)
    return cross_entropy(logits, labels[:256]) * (1 + strength * term)


keys = jax.random.split(key, 3)
plain_params = {
    "first": uniform(keys[0], 64, 48),
    "hidden": uniform(keys[1], 30, 48 + 1, 48),
    "head": uniform(keys[2], 48, 10),
    "wanted": jnp.full(30, 0.8),
}
steps, right = 50 if SMOKE else 1500, {}
for name, strength in {"without": 0.0, "with": 1.0}.items():
    args = (jnp.full(steps, strength),)
    fitted, _ = train(plain_loss, optax.adam(1e-3), plain_params, steps, args)
    logits, entropies = plain_network(fitted, images[:256])
    right[name] = jnp.mean(logits.argmax(1) == labels[:256])
    print(f"{name} the term: accuracy {right[name]:.1%}", end=", ")
    print(f"entropy of the last layer {entropies[-1]:.4f}")
assert SMOKE or right["with"] > 0.9 > 0.2 > right["without"]

# %% [markdown]
# ## Geometric complexity
#
# Geometric complexity is the mean of ‖df/dx‖² over the data, with fixed
# statistics of BatchNorm ([Dherin et al.](https://arxiv.org/abs/2209.13083)).
# It depends on the function only, so not on the scale of filters. For a linear
# map A it is ‖A‖². Input noise of small variance s² changes the outputs by s²
# times it, in mean square.


# %%
def complexity(function, inputs):
    jacobians = jax.vmap(jax.jacrev(function))(inputs)
    return jnp.mean(jnp.sum(jacobians**2, axis=(1, 2)))


def frozen(params):
    """Return the network with the statistics of x."""
    statistics = network(params, x)[1]
    return lambda inputs: network(params, inputs, statistics)[0]


A = normal(4, 64, 10)
assert np.isclose(complexity(lambda row: row @ A, x), jnp.sum(A**2), rtol=1e-5)
size = complexity(frozen(trained), x)
assert np.isclose(complexity(frozen(rescale(trained)), x), size, rtol=1e-5)
# 20 samples of noise in 64 dimensions for each of 200 inputs; the squares of
# outputs have a relative deviation near 1.
xi = 0.01 * jax.random.normal(key, (20, *x.shape))
moved = (frozen(trained)(x + xi) - frozen(trained)(x)) / 0.01
assert np.isclose(jnp.mean(jnp.sum(moved**2, -1)), size, rtol=5 / 4000**0.5)
print(f"geometric complexity {size:.3f}")

# %% [markdown]
# The claim is that penalties of the spectral norms and of the gradient's norm
# reduce it, too. That of the spectral norms does. That of the gradient's norm
# does not here: it vanishes at the end of training, and with three times this
# strength the network does not train.


# %%
def small_network(params, x):
    return jnp.tanh(x @ params["hidden"]) @ params["head"]


def fit(params):
    return cross_entropy(small_network(params, images[:256]), labels[:256])


def mean_complexity(params, inputs=images[:32]):
    return complexity(functools.partial(small_network, params), inputs)


penalties = {
    "none": lambda _: 0.0,
    "complexity": lambda p: 0.01 * mean_complexity(p),
    "spectral norms": lambda p: (
        0.01 * sum(jnp.linalg.norm(w, 2) ** 2 for w in p.values())
    ),
    "gradient norm": lambda p: optax.tree.norm(jax.grad(fit)(p)) ** 2,
}
small = {"hidden": normal(5, 64, 32), "head": normal(6, 32, 10)}
steps, sizes = 100 if SMOKE else 500, {}
for name, penalty in penalties.items():
    fitted, _ = train(
        lambda p, term=penalty: fit(p) + term(p), optax.sgd(0.3), small, steps
    )
    sizes[name] = mean_complexity(fitted, images)
    accuracy = jnp.mean(small_network(fitted, images).argmax(1) == labels)
    print(f"{name:15} complexity {sizes[name]:7.3f}, accuracy {accuracy:.1%}")
assert sizes["complexity"] < 0.5 * sizes["none"]
assert sizes["spectral norms"] < 0.9 * sizes["none"]
assert np.isclose(sizes["gradient norm"], sizes["none"], rtol=0.1)

# %% [markdown]
# ## Dropout's implicit regularization
#
# Dropout of the last hidden layer, which keeps a unit with the probability p,
# adds R1 = (1 - p)/p · mean Σ (a h)² to the expected square loss, with
# activations h and output weights a ([Zhang and
# Xu](https://arxiv.org/abs/2207.05952)).

# %%
line = jnp.linspace(-1, 1, 24)
curve = jnp.maximum(line - 0.2, 0) - jnp.maximum(-line - 0.4, 0)
KEEP, UNITS = 0.8, 50


def terms(params):
    """Return the contribution of each unit to the output, shape (n, units)."""
    slope, offset, a = params
    return a * jnp.tanh(slope * line[:, None] + offset)


def dropped_loss(params, key, keep=KEEP):
    kept = jax.random.bernoulli(key, keep, (len(line), UNITS)) / keep
    return jnp.mean((jnp.sum(kept * terms(params), axis=1) - curve) ** 2)


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
# Two claims: units condense to few directions of (slope, offset), and the
# covariance of the noise in the gradient aligns with the Hessian.

# %%
steps, condensed, ends = 1000 if SMOKE else 40_000, {}, {}
for keep in (1.0, KEEP):
    args = jax.random.split(key, steps), jnp.full(steps, keep)
    ends[keep], _ = train(dropped_loss, optax.sgd(0.05), one, steps, args)
    lengths = jnp.hypot(*ends[keep][:2])
    filters = jnp.stack(ends[keep][:2]) / lengths
    share = jnp.abs(ends[keep][2]) * lengths
    share = share / share.sum()
    condensed[keep] = share @ jnp.abs(filters.T @ filters) @ share
    print(f"keep {keep}: mean |cosine| of filters {condensed[keep]:.3f}")
assert SMOKE or condensed[KEEP] > condensed[1.0]

flat, unravel = jax.flatten_util.ravel_pytree(ends[KEEP])


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, 0))
def noisy_gradient(flat, key):
    return jax.grad(lambda w: dropped_loss(unravel(w), key))(flat)


def alignment(h, c):
    return float(jnp.sum(h * c) / jnp.linalg.norm(h) / jnp.linalg.norm(c))


clean = functools.partial(dropped_loss, key=key, keep=1.0)
hessian = jax.jit(jax.hessian(lambda w: clean(unravel(w))))(flat)
covariance = jnp.cov(noisy_gradient(flat, jax.random.split(key, 2000)).T)
# The control: the same spectrum in random directions.
q = jnp.linalg.qr(jax.random.normal(key, hessian.shape))[0]
aligned = alignment(hessian, covariance)
by_chance = alignment(hessian, q @ covariance @ q.T)
print(f"alignment {aligned:.3f}, of random directions {by_chance:.3f}")
assert aligned > 2 * abs(by_chance)

# %% [markdown]
# ## The part of the weights outside of the data
#
# Gradients are combinations of the inputs. The component of a kernel orthogonal
# to their span only decays: by (1 - ηλ)^t in t steps of SGD ([He et
# al.](https://arxiv.org/abs/2203.00614)). Some pixels of the digits are always
# blank.

# %%
rate, decay, steps = 0.1, 0.05, 100
tx = optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate))
fitted, _ = train(fit, tx, small, steps)
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
ratio = jnp.linalg.norm(after[1]) / jnp.linalg.norm(before[1])
print(f"orthogonal part: {ratio:.5f} of its initial norm")

# %% [markdown]
# ## Importance and redundancy of units from one gradient
#
# Each unit is multiplied by a gate of 1, one for each example. One backward
# pass returns the gradient G with respect to the gates, of shape (n, units).
# The mean of its squares is the Taylor importance ([Molchanov et
# al.](https://arxiv.org/abs/1906.10771)). Here the units are those of the
# second layer, and the head minimizes the loss, so the mean of G is zero.


# %%
@jax.jit
def gated_losses(gates, hidden, head):
    return 0.5 * jnp.sum(((gates * hidden) @ head - targets) ** 2, axis=1)


def gate_gradient(hidden, head):
    total = functools.partial(gated_losses, hidden=hidden, head=head)
    return jax.vjp(total, jnp.ones(hidden.shape))[1](jnp.ones(len(hidden)))[0]


def loss_without(removed):
    return gated_losses(1.0 - removed, hidden, head).mean()


def rank_correlation(*values):
    return np.corrcoef([np.argsort(np.argsort(v)) for v in values])[0, 1]


hidden = network(trained | {"head": jnp.eye(24)}, x)[0]
head = jnp.asarray(np.linalg.lstsq(hidden, targets)[0])
G = gate_gradient(hidden, head)
importance = jnp.mean(G**2, axis=0)
# Rounding, relative to the size of G.
assert jnp.abs(G.mean(0)).max() < 1e-5 * importance.max() ** 0.5
increases = [loss_without(unit) - loss_without(0.0) for unit in jnp.eye(24)]
of_squares = rank_correlation(importance, increases)
of_mean = rank_correlation(G.mean(0) ** 2, increases)
print(f"rank correlation with removal {of_squares:.2f}, ", end="")
print(f"of the squared mean gradient {of_mean:.2f}")
assert of_squares > 0.8 > of_mean  # The control is rounding.

# %% [markdown]
# If gated units follow BatchNorm, the sum of the gradient over examples is γ
# dL/dγ + β dL/dβ ([Liu et al.](https://arxiv.org/abs/2110.12477)).


# %%
def behind_batchnorm(gates, scale, bias):
    z = scale * jax.nn.standardize(hidden, axis=0) + bias
    return jnp.mean(jnp.cos(gates * z).sum(1))


scale, bias = jnp.linspace(0.5, 2, 24), jnp.linspace(-1, 1, 24)
gates = jnp.ones_like(hidden)
slopes = jax.grad(behind_batchnorm, (0, 1, 2))(gates, scale, bias)
expected = scale * slopes[1] + bias * slopes[2]
# Sums of 200 terms of size 1/200: some rounding errors of 1.
assert jnp.allclose(slopes[0].sum(0), expected, atol=1e-5)
assert not jnp.allclose(slopes[0].sum(0), scale * slopes[1], atol=1e-2)

# %% [markdown]
# The claim: pruning by Taylor importance raises the loss less than pruning by
# the norm of filters. `psi_sgd` keeps the initial norms, which contain no
# information here.

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
figure.tight_layout()
print({name: round(float(area), 3) for name, area in areas.items()})
assert areas["Taylor"] < 0.95 * areas["magnitude"]

# %% [markdown]
# Three units are duplicated, with other output weights. The rank of G stays the
# same, and its parallel columns identify the duplicates.

# %%
copies = jnp.array([2, 7, 11])
columns = gate_gradient(
    jnp.hstack([hidden, hidden[:, copies]]),
    jnp.vstack([head, 0.5 * head[copies]]),
)
# Singular values of duplicates are rounding errors, 1e-7 of the largest.
ranks = [int(np.linalg.matrix_rank(g, rtol=1e-5)) for g in (G, columns)]
columns = columns / jnp.linalg.norm(columns, axis=0)
parallel = jnp.triu(jnp.abs(columns.T @ columns) > 1 - 1e-5, 1)
pairs = np.argwhere(parallel).tolist()
print(f"ranks {ranks} of 24 and 27 units, duplicates {pairs}")
assert ranks == [24, 24]  # The first is the control: full rank.
assert pairs == [[2, 24], [7, 25], [11, 26]]

# %% [markdown]
# ## The Gram matrix, its limit and its drift
#
# With the Jacobian J of the outputs, a step of gradient descent on the square
# loss of n examples multiplies residuals by I - ηJJ'/n. For the first layer of
# a wide ReLU network and inputs of norm 1, JJ' converges to x'y (π - arccos
# x'y)/(2π) ([Du et al.](https://arxiv.org/abs/1810.02054)). Its change in
# training decreases like 1/√width.

# %%
points = jax.random.normal(key, (20, 5))
points = points / jnp.linalg.norm(points, axis=1, keepdims=True)
wanted = jnp.sin(3 * points[:, 0])


def wide(w):
    """Return outputs for output weights of alternating sign."""
    signs = jnp.where(jnp.arange(len(w)) % 2, 1.0, -1.0)
    return jax.nn.relu(points @ w.T) @ signs / len(w) ** 0.5


def wide_loss(w):
    return 0.5 * jnp.mean((wide(w) - wanted) ** 2)


@jax.jit
def gram(w):
    jacobian = jax.jacrev(wide)(w).reshape(len(points), -1)
    return jacobian @ jacobian.T


width = 20_000 if SMOKE else 200_000
dots = jnp.clip(points @ points.T, -1, 1)
limit = dots * (jnp.pi - jnp.arccos(dots)) / (2 * jnp.pi)
error = jnp.abs(gram(jax.random.normal(key, (width, 5))) - limit).max()
print(f"largest error {error:.1e}", end=", ")
print(f"least eigenvalue of the limit {np.linalg.eigvalsh(limit)[0]:.1e}")
# A mean of values in {0, 1} has a standard error of 0.5/√width or less.
assert error < 5 * 0.5 / width**0.5

steps, drifts = 50, {}
for width in (100, 10_000):
    w = jax.random.normal(key, (width, 5))
    end, _ = train(wide_loss, optax.sgd(1.0), w, steps)
    before, after = np.asarray(gram(w)), np.asarray(gram(end))
    contraction = np.linalg.matrix_power(np.eye(20) - before / 20, steps)
    predicted = contraction @ np.asarray(wide(w) - wanted)
    miss = np.linalg.norm(predicted - (wide(end) - wanted))
    miss = miss / np.linalg.norm(predicted)
    drifts[width] = np.linalg.norm(after - before) / np.linalg.norm(before)
    print(f"width {width}: drift {drifts[width]:.4f}, residuals", end=" ")
    print(f"{miss:.4f} from the prediction")
assert drifts[100] > 4 * drifts[10_000]  # A factor of 10 is expected.
assert miss < 0.05
