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
# # Perturbations and averages of weights
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/psi-optax/psi_optax/blob/main/notebooks/07_perturbations_and_averages.ipynb)
#
# A network learns digits, 20 % of them with wrong labels. You will see
#
# 1. SAM, whose result depends on the norms of filters unless its perturbation
#    is relative to them;
# 2. noise before the gradient, which raises the test accuracy;
# 3. Entropy-SGD, which is no better here than stopping early;
# 4. learners that average with their neighbors: their accuracy is that of
#    synchronous SGD with `retract`, and lower without it;
# 5. an average over steps, which raises the test accuracy;
# 6. children of two networks, which are no better here than new networks.
#
# Tables have means over five seeds or four learners, with standard errors.
#
# On Colab choose a CPU runtime: the notebook takes about 1.5 minutes on two CPU
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
import os

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

import psi_optax
from psi_optax import ScaleGroup, batch_stats, landscape, transforms, wrappers

plt.style.use("tableau-colorblind10")
# The tests set PSI_OPTAX_SMOKE for a short run.
SMOKE = bool(os.environ.get("PSI_OPTAX_SMOKE"))
if SMOKE:
    print("A short run: its numbers are not those of the text.")
    jax.config.update("jax_disable_most_optimizations", True)
STEPS = 50 if SMOKE else 1000
# By default TPUs and some GPUs multiply float32 numbers in a lower precision.
# Assertions here are to the rounding of float32.
jax.config.update("jax_default_matmul_precision", "highest")

# %% [markdown]
# ## Data, a network and a training run
#
# 1000 digits for training, and 797 with correct labels for the test. Two layers
# with BatchNorm, whose columns are scale groups, and a head without groups.
# BatchNorm has no epsilon, so the loss is exactly scale-invariant.

# %%
digits, random = load_digits(), np.random.default_rng(0)
order = random.permutation(len(digits.data))
images = jnp.asarray(digits.data[order] / 16, jnp.float32)
labels = jnp.asarray(digits.target[order], jnp.int32)
x, test_x, test_y = images[:1000], images[1000:], labels[1000:]
shift = np.where(random.random(1000) < 0.2, random.integers(1, 10, 1000), 0)
y = (labels[:1000] + shift) % 10

LAYERS = ("first", "second")
groups = {"first": ScaleGroup(0), "second": ScaleGroup(0), "head": None}


# %%
def new_params(seed):
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {
        "first": jax.random.normal(keys[0], (64, 64)),
        "second": jax.random.normal(keys[1], (64, 64)),
        "head": 0.1 * jax.random.normal(keys[2], (64, 10)),
    }
    return psi_optax.normalize(params, groups)  # Filters of norm 1.


def network(params, x, statistics=None):
    """Return the logits, and the mean and variance of each BatchNorm."""
    used = {}
    for name in LAYERS:
        z = x @ params[name]
        used[name] = {"mean": z.mean(0), "var": z.var(0)}
        fixed = (statistics or used)[name]
        x = jax.nn.relu((z - fixed["mean"]) * jax.lax.rsqrt(fixed["var"]))
    return x @ params["head"], used


def loss_fn(params, x, y, statistics=None):
    logits, _ = network(params, x, statistics)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    return losses.mean()


# %% [markdown]
# `vmap` trains all seeds together. Its axis has a name, as learners exchange
# weights along it. SAM and Entropy-SGD call `grad_fn` at other weights.


# %%
@functools.partial(jax.jit, static_argnums=(0, 3))
def train(tx, params, data, steps=STEPS):
    """Return the weights and the states of all seeds or learners."""
    tx = optax.with_extra_args_support(tx)

    @functools.partial(jax.vmap, axis_name="learners")
    def run(params, key, data):
        def step(carry, key):
            params, state = carry

            def grad_fn(params, i):
                key_i = jax.random.fold_in(key, i)
                batch = jax.random.choice(key_i, len(data[0]), (100,))
                return jax.grad(loss_fn)(params, *(d[batch] for d in data))

            updates, state = tx.update(
                grad_fn(params, 0), state, params, grad_fn=grad_fn
            )
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(key, steps)
        return jax.lax.scan(step, (params, tx.init(params)), keys)[0]

    keys = jax.random.split(jax.random.key(1), len(params["head"]))
    return run(params, keys, data)


start = jax.vmap(new_params)(jnp.arange(5))
data = jnp.stack([x] * 5), jnp.stack([y] * 5)

# %% [markdown]
# `batch_stats.recalibrate` computes the running statistics of perturbed and
# averaged weights.


# %%
@jax.jit
def statistics_of(variables, batch):
    return jax.vmap(lambda w: network(w, batch)[1])(variables["params"])


@jax.jit
@jax.vmap
def scores_of(params, statistics):
    logits, _ = network(params, test_x, statistics)
    return {
        "test accuracy": jnp.mean(logits.argmax(1) == test_y),
        "test loss": loss_fn(params, test_x, test_y, statistics),
        "train loss": loss_fn(params, x, y, statistics),
    }


def evaluate(params):
    variables = {"params": params}
    variables["batch_stats"] = statistics_of(variables, x)
    variables = batch_stats.recalibrate(
        statistics_of, variables, x.reshape(10, 100, 64)
    )
    return scores_of(params, variables["batch_stats"])


def text(values):
    """Return the mean and its standard error."""
    error = np.std(values, ddof=1) / len(values) ** 0.5
    return f"{np.mean(values):.3f} ± {error:.3f}"


def show(runs):
    """Print the scores of runs, {name: weights}."""
    scores = {name: evaluate(params) for name, params in runs.items()}
    keys = "test accuracy", "test loss", "train loss"
    print(f"{'':22}", *[f"{key:15}" for key in keys])
    for name, found in scores.items():
        print(f"{name:22}", *[f"{text(found[key]):15}" for key in keys])
    return scores


def means(scores, key="test accuracy"):
    """Return the mean of a score of each run, in their order."""
    return [np.mean(found[key]) for found in scores.values()]


# %% [markdown]
# ## The scale of a perturbation
#
# SAM takes the gradient at weights that have been perturbed by an ascent step
# of length ρ ([Foret et al.](https://arxiv.org/abs/2010.01412)). The loss does
# not depend on the norms of filters, but the angle of the perturbation does: it
# is larger for smaller filters. With `relative_ascent`, ρ is relative to the
# norms. The inner optimizer, `psi_sgd`, does not depend on norms, so the
# differences in a row of the table are those of the perturbation. A step of SAM
# costs two gradients.


# %%
def rescale(params, factor):
    return params | {name: factor * params[name] for name in LAYERS}


def agree(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


rho, descent = 1.0, psi_optax.psi_sgd(0.1, groups)
raw_ascent = optax.chain(optax.contrib.normalize(), optax.sgd(rho))
ascent = transforms.relative_ascent(rho, groups)
optimizers = {
    "without": descent,
    "absolute": optax.contrib.sam(descent, raw_ascent, opaque_mode=True),
    "relative": optax.contrib.sam(descent, ascent, opaque_mode=True),
}

# %%
same, factors = {}, (1 / 8, 1.0, 8.0)
print("Test accuracy", *[f"filters x {f:<5}" for f in factors], sep="   ")
for name, tx in optimizers.items():
    ends = [train(tx, rescale(start, f), data)[0] for f in factors]
    accuracies = [text(evaluate(end)["test accuracy"]) for end in ends]
    print(f"{name:13}", *accuracies, sep="   ")
    ends = [rescale(end, 1 / f) for f, end in zip(factors, ends, strict=True)]
    same[name] = [agree(end, ends[1]) for end in ends]
# Powers of two change no bit of a relative run.
assert all(same["without"] + same["relative"])
assert same["absolute"] == [False, True, False]  # The control.

# %% [markdown]
# At norm 1 both perturbations are the same, up to rounding. With the absolute
# one, filters of norm 1/8 do not train, and for filters of norm 8 most of the
# gain in accuracy is lost.
#
# ## Noise before the gradient
#
# `perturb_weights` evaluates each gradient at weights with normal noise, whose
# standard deviation is σ times the norm of each filter. The step starts at the
# weights without noise, the center ([Orvieto et
# al.](https://arxiv.org/abs/2206.04613)). It costs one gradient. Gradients at
# perturbed weights are not tangent at the center, as `psi_sgd` assumes: the
# momentum is that of `psi_direction`.

# %%
sigmas = (0.0, 1.6) if SMOKE else (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)
losses, scores = {}, {}
momentum = psi_optax.psi_direction(0.01, optax.trace(0.9), groups)
for sigma in sigmas:
    tx = wrappers.perturb_weights(momentum, sigma, groups, key=0)
    perturbed, state = train(tx, start, data)
    scores[sigma] = center = evaluate(jax.vmap(wrappers.get_center)(state))
    for name, loss in {
        "test, center": center["test loss"],
        "test, with noise": evaluate(perturbed)["test loss"],
        "train, center": center["train loss"],
    }.items():
        losses.setdefault(name, []).append(loss)
    print(f"noise {sigma}: test accuracy {text(center['test accuracy'])}")
with_noise = np.subtract(losses["test, with noise"], losses["test, center"])
assert np.allclose(with_noise[0], 0, atol=1e-4)  # Rounding without noise.
assert np.all(with_noise[-1] > 0.1)
assert SMOKE or np.all(np.array(means(scores)[-2:]) > means(scores)[0] + 0.05)

# %%
figure, axes = plt.subplots(figsize=(5, 3))
for name, values in losses.items():
    error = np.std(values, axis=1, ddof=1) / 5**0.5
    places = range(len(sigmas))
    axes.errorbar(places, np.mean(values, axis=1), error, label=name)
axes.set_xticks(places, sigmas)
axes.set(xlabel="noise relative to norms", ylabel="loss")
axes.legend()
figure.tight_layout()

# %% [markdown]
# Noise prevents the network from learning the wrong labels: the training loss
# of the center rises, and its test loss decreases. Evaluate the center, as the
# weights with noise have a larger loss.
#
# ## Entropy-SGD
#
# `local_entropy` replaces the gradient by γ(x - μ), where μ is the mean of
# inner steps that start at x and are attracted to it ([Chaudhari et
# al.](https://arxiv.org/abs/1611.01838)). For a quadratic loss with Hessian H
# it is γH/(H + γ) x, at most γx in directions of large curvature.

# %%
H, gamma, point = jnp.array([0.1, 1.0, 5.0]), 0.5, jnp.array([1.0, -2.0, 0.5])


def quadratic(x, _):
    return H * x


tx = wrappers.local_entropy(None, gamma=gamma, steps=400, rate=0.1)
found, _ = tx.update(
    quadratic(point, 0), tx.init(point), point, grad_fn=quadratic
)
print("gradient", H * point, "of the local entropy", found)
# A difference of numbers six times as large: some rounding errors.
assert jnp.allclose(found, gamma * H / (H + gamma) * point, rtol=1e-5)
assert not jnp.allclose(found, H * point, rtol=0.1)

# %% [markdown]
# A step with 5 inner steps costs 5 gradients. The learning rate 1/γ moves x to
# μ. The comparisons are `psi_sgd` with as many gradients, and with as many
# steps.

# %%
inner = wrappers.local_entropy(groups, gamma=0.3, steps=5, rate=0.1)
tx, few = optax.chain(inner, psi_optax.psi_sgd(1 / 0.3, groups)), STEPS // 5
scores = show(
    {
        f"Entropy-SGD, {few} x 5": train(tx, start, data, few)[0],
        f"psi_sgd, {STEPS}": train(descent, start, data)[0],
        f"psi_sgd, {few}": train(descent, start, data, few)[0],
    }
)
entropy, as_many_gradients, as_many_steps = means(scores)
assert SMOKE or as_many_gradients < entropy < as_many_steps

# %% [markdown]
# Entropy-SGD has a higher test accuracy than `psi_sgd` with as many gradients,
# and a lower one than `psi_sgd` with as many steps. SAM and larger noise have
# higher accuracies than all three.
#
# ## Learners that average with their neighbors
#
# `mix_with_neighbors` averages the weights of each learner with those of its
# two neighbors on a ring ([Lian et al.](https://arxiv.org/abs/1705.09056)). If
# all gradients are linear with the same Hessian, the mean of the learners takes
# the steps of synchronous SGD. Otherwise it does not.

# %%
mixing = transforms.mix_with_neighbors("learners")
ring = optax.chain(optax.sgd(0.1), mixing)
minima = jax.random.normal(jax.random.key(2), (4, 3))


def mean_and_synchronous(gradient):
    """Return the mean of the learners, and synchronous SGD."""

    @functools.partial(jax.vmap, axis_name="learners")
    def step(w, minimum):
        return w + ring.update(gradient(w - minimum), ring.init(w), w)[0]

    learners, mean = jnp.zeros((4, 3)), jnp.zeros(3)
    for _ in range(30):
        learners = jax.jit(step)(learners, minima)
        mean -= 0.1 * gradient(mean - minima).mean(0)
    return learners.mean(0), mean


# Some rounding errors of numbers near 1.
assert jnp.allclose(*mean_and_synchronous(lambda w: H * w), atol=1e-6)
# The control.
assert not jnp.allclose(*mean_and_synchronous(lambda w: w**3), atol=1e-2)

# %% [markdown]
# An average of weights on a sphere lies inside of it, and `retract` restores
# the norms. Four learners start at the same weights, each with a quarter of the
# data. On a ring without `retract` norms decrease, and the accuracy is no
# higher than that of learners alone. With it the accuracy is about that of
# synchronous SGD.


# %%
def least_norm(params):
    norms = jax.vmap(lambda w: psi_optax.group_norms(w, groups))(params)
    return min(float(jnp.min(norm)) for norm in jax.tree.leaves(norms))


synchronous = optax.stateless(lambda g, _: jax.lax.pmean(g, "learners"))
optimizers = {
    "alone": descent,
    "ring": optax.chain(descent, mixing),
    "ring and retract": optax.chain(
        descent, mixing, transforms.retract(groups)
    ),
    "synchronous": optax.chain(synchronous, descent),
}
quarters = x.reshape(4, 250, 64), y.reshape(4, 250)
learners = jax.tree.map(lambda w: jnp.stack([w[0]] * 4), start)
ends = {
    name: train(tx, learners, quarters)[0] for name, tx in optimizers.items()
}
scores = show(ends)
least = {name: least_norm(params) for name, params in ends.items()}
print("least norms", {name: round(norm, 4) for name, norm in least.items()})
assert abs(least["ring and retract"] - 1) < 1e-6  # Some rounding errors.
assert least["ring"] < 1 - 1e-5
alone, ring, with_retract, synchronized = means(scores)
assert SMOKE or ring + 0.05 < with_retract
assert SMOKE or ring < alone + 0.02
assert SMOKE or abs(with_retract - synchronized) < 0.03

# %% [markdown]
# ## An average over steps
#
# `average_weights` is the last transform of a chain and changes no update
# ([Izmailov et al.](https://arxiv.org/abs/1803.05407)). With groups,
# `get_average` returns filters with the directions of the average and the norms
# of the weights.

# %%
tx = optax.chain(
    psi_optax.psi_sgd(0.1, groups, momentum=0.9), wrappers.average_weights(0.99)
)
last, state = train(tx, start, data)
ends = {"last weights": last}
for name, given in {"plain average": None, "average": groups}.items():
    read = functools.partial(wrappers.get_average, groups=given)
    ends[name] = jax.vmap(read)(state, last)
scores = show(ends)
least = {name: least_norm(params) for name, params in ends.items()}
print("least norms", {name: round(norm, 4) for name, norm in least.items()})
# Norms have no effect on the loss except rounding. But an optimizer that starts
# from smaller filters rotates them faster.
plain, average = (scores[name]["test loss"] for name in list(ends)[1:])
assert jnp.allclose(plain, average, rtol=1e-4)
assert abs(least["average"] - 1) < 1e-6
assert least["plain average"] < 0.99
assert SMOKE or means(scores)[2] > means(scores)[0] + 0.03

# %% [markdown]
# ## Neuroevolution
#
# In a population, children of two good networks replace bad networks ([Zhang et
# al.](https://arxiv.org/abs/2012.11184)). Here a child has the midpoint of the
# geodesic between the filters of its parents, which has their norm. The
# midpoint of the line has a smaller norm. Each of the five networks has a child
# with the next one.

# %%
parents, few = train(descent, start, data)[0], STEPS // 10
mates = jax.tree.map(lambda w: jnp.roll(w, 1, axis=0), parents)
children = jax.vmap(
    lambda first, second: landscape.geodesic(first, second, groups)(0.5)
)(parents, mates)
assert abs(least_norm(children) - 1) < 1e-6
on_lines = jax.tree.map(lambda a, b: (a + b) / 2, parents, mates)
assert least_norm(on_lines) < 0.9  # The control.
scores = show(
    {
        "parents": parents,
        "children": children,
        f"children, {few} steps": train(descent, children, data, few)[0],
        f"new, {few} steps": train(descent, start, data, few)[0],
    }
)
*_, trained, new = means(scores)
assert SMOKE or trained < new
*_, trained, new = means(scores, "train loss")
assert SMOKE or trained < new

# %% [markdown]
# Children have much larger losses than their parents, whose filters are not
# matched. In as many steps they reach a lower training loss than new networks,
# and a lower test accuracy.
#
# [Recipes](../docs/recipes.md) have generations of such a population, and a
# natural gradient for a graph network.
